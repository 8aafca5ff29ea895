"""Whom the client trusts: certifi's certificates, a file of one's own, or anybody.

Called once, when a client is made.
"""

from __future__ import annotations

import ssl
from typing import Any

import certifi

from agent.prefect.errors import ClientMisconfigured
from agent.settings import Settings


def ssl_context(settings: Settings, *, at_once: bool) -> ssl.SSLContext:
    """Make the context for https connections, HTTP/1.1 only.

    Args:
        settings: PREFECT_API_TLS_INSECURE_SKIP_VERIFY; PREFECT_API_SSL_CERT_FILE, by default
            SSL_CERT_FILE, by default certifi's file.
        at_once: load the certificates now. They cost 10 ms and more, which an http:// URL should
            not pay; they are then loaded if a redirect or a proxy should lead to https after all.

    Raises:
        ClientMisconfigured: the file can't be read, or holds no certificate.
    """
    if settings.tls_insecure_skip_verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    lazy = _LazyContext(ssl.PROTOCOL_TLS_CLIENT)
    lazy.trusted = str(settings.ssl_cert_file or certifi.where())
    if at_once:
        try:
            lazy.load()
        except OSError as error:
            reason = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise ClientMisconfigured(
                f"certificates to trust can't be read from {lazy.trusted}: {reason}; see"
                " PREFECT_API_SSL_CERT_FILE and SSL_CERT_FILE"
            ) from error
    return lazy


class _LazyContext(ssl.SSLContext):
    """Reads the trusted certificates for the first connection; until then it trusts nobody."""

    trusted: str | None = None

    def load(self) -> None:
        if self.trusted is not None:
            self.load_verify_locations(cafile=self.trusted)
            self.trusted = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self.load()
        return super().wrap_bio(*args, **kwargs)
