"""What of a launch may be written down: names as they are, values as keyed digests.

Whether two launches had the same value can be seen in the log; the value can't, for the digests'
key lies in a file of its own beside the log and never in it. Called by the submission driver, and
once at the agent's start for the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agent.infrastructure.launcher import ProcessSpec
from events.observations import InfrastructureResolved

KEY_NAME: Final = "digest.key"
KEY_BYTES: Final = 32

SHORTEST_SECRET: Final = 8
"""Characters. Shorter values are not looked for: they would be found by chance."""

_CREDENTIALS: Final = frozenset({"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"})
"""Looked for whatever their length."""

_TELLING: Final = ("KEY", "TOKEN", "SECRET", "PASS", "AUTH", "CREDENTIAL", "PRIVATE", "DSN")
"""A variable with one of these in its name may hold a secret. To take one too many costs little:
a piece of a command is then shown as a digest."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def redact(
    spec: ProcessSpec, key: bytes, *, base_environment: Mapping[str, str] = _NOTHING
) -> InfrastructureResolved:
    """Return what the log keeps of a launch.

    In place of each variable's value is its digest. Where the value of a variable that may be
    secret turns up in the command, or in any other text, a digest is put there, too.

    Args:
        spec: what is to be launched.
        key: of the digests, from `digest_key`.
        base_environment: what every job is given. Variables that have their value from it are
            left out: they are the agent's, not this launch's.
    """
    hide = _hiding(spec.env, key)
    return InfrastructureResolved(
        infrastructure="process",
        name=hide(spec.name),
        command=tuple(map(hide, spec.command)),
        working_dir=None if spec.working_dir is None else hide(spec.working_dir),
        env={
            name: None if value is None else digest(value, key)
            for name, value in spec.env.items()
            if value is None or base_environment.get(name) != value
        },
        labels={name: hide(value) for name, value in spec.labels.items()},
    )


def digest(value: str, key: bytes) -> str:
    """Return what stands for a value: the same for the same value and key, 16 hex digits."""
    # An environment may hold bytes that are not UTF-8; Python keeps them as lone surrogates.
    return hashlib.blake2b(value.encode(errors="surrogatepass"), key=key, digest_size=8).hexdigest()


def digest_key(state_dir: Path) -> bytes:
    """Return the key of this log's digests; it is made when first asked for.

    The file appears whole and synced or not at all, is for its owner only, and is never replaced:
    of two that make it at once, both get the first one's key.

    Raises:
        DigestKeyUnusable: it can be neither read nor made, or is not a key.
    """
    path = state_dir / KEY_NAME
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise DigestKeyUnusable(path, error.strerror or type(error).__name__) from error
    if len(key) != KEY_BYTES:
        raise DigestKeyUnusable(
            path,
            f"it has {len(key)} bytes instead of {KEY_BYTES}; put it back as it was, or remove"
            " it (digests made from then on can't be compared with earlier ones)",
        )
    return key


class DigestKeyUnusable(Exception):
    """There is no key for the log's digests.

    Attributes:
        path: the key's file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"can't use {path}: {reason}")


def _make_key(path: Path) -> None:
    handle, partial = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(handle)
        # Somebody else was quicker: theirs is as good.
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
    finally:
        os.unlink(partial)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _hiding(env: Mapping[str, str | None], key: bytes) -> Callable[[str], str]:
    """Return what puts digests in place of the secrets of an environment, in any text."""
    hidden = [value for name, value in env.items() if value and _may_be_secret(name, value)]
    if not hidden:
        return str
    # Longest first: of two secrets that begin alike, the longer one must not be left half shown.
    pattern = re.compile("|".join(map(re.escape, sorted(hidden, key=len, reverse=True))))
    return lambda text: pattern.sub(lambda found: f"<{digest(found[0], key)}>", text)


def _may_be_secret(name: str, value: str) -> bool:
    if name in _CREDENTIALS:
        return True
    return len(value) >= SHORTEST_SECRET and any(word in name.upper() for word in _TELLING)
