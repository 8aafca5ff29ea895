"""The client on real sockets: connections that break, certificates, proxies, and how many."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from agent.prefect.client import PrefectClient
from agent.prefect.errors import ClientMisconfigured, Unreachable
from agent.settings import Settings
from tests.unit.prefect_api import RUN_ID, run_json, settings

Serve = Callable[[trio.abc.Stream], Awaitable[None]]
BODY = json.dumps(run_json()).encode()
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
QUICKLY = {"PREFECT_CLIENT_RETRY_JITTER_FACTOR": "1", "PREFECT_API_REQUEST_TIMEOUT": "30"}


@pytest.fixture(autouse=True)
def _without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@asynccontextmanager
async def listening(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection on a loopback port."""

    async def one(stream: trio.SocketStream) -> None:
        wrapped: trio.abc.Stream = stream
        if context is not None:
            wrapped = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await serve(wrapped)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The client hung up, e.g. because it does not trust the certificate.
            return
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener, *_) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, one, [listener])
        yield port
        nursery.cancel_scope.cancel()


async def request(stream: trio.abc.Stream) -> bytes:
    """Read one request without a body; b"" at the end of the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = await stream.receive_some()
        if not more:
            return b""
        received += more
    return received


async def well(stream: trio.abc.Stream) -> None:
    """Answer every request of a connection."""
    while await request(stream):
        await stream.send_all(GOOD)


def configured(port: int, scheme: str = "http", **environment: str) -> Settings:
    """Settings for a server on loopback."""
    url = f"{scheme}://127.0.0.1:{port}/api"
    return settings(**({"PREFECT_API_URL": url} | QUICKLY | environment))


class _NoWait:
    """A random source for which every delay is zero."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, _count: int) -> int:
        return 0


def _impatient(config: Settings) -> PrefectClient:
    return PrefectClient(config, rng=_NoWait())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "partial",
    [b"", GOOD[:20], GOOD[:-5], b"\x16\x03\x01 this is not HTTP\r\n\r\n"],
    ids=["nothing", "half a head", "half a body", "another protocol"],
)
async def test_a_connection_dropped_in_the_middle_is_tried_again(partial: bytes) -> None:
    connections = 0

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal connections
        connections += 1
        if connections < 3:
            await request(stream)
            await stream.send_all(partial)
            return
        await well(stream)

    async with listening(serve) as port, _impatient(configured(port)) as prefect:
        assert (await prefect.read_flow_run(RUN_ID)).id == RUN_ID
        assert (connections, prefect.requests) == (3, 3)


async def test_a_kept_connection_that_the_server_closed_is_not_even_noticed() -> None:
    async def once(stream: trio.abc.Stream) -> None:
        await request(stream)
        await stream.send_all(GOOD)

    async with listening(once) as port, PrefectClient(configured(port)) as prefect:
        for _ in range(3):
            await prefect.read_flow_run(RUN_ID)
            await _closed_by_the_server(prefect)
        assert prefect.requests == 3


async def _closed_by_the_server(prefect: PrefectClient) -> None:
    """Wait until the end of the idle connection has arrived."""
    pool = prefect._wire._http._transport._pool  # type: ignore[attr-defined]
    with trio.fail_after(10):
        while not all(connection.has_expired() for connection in pool.connections):
            await trio.lowlevel.checkpoint()


async def test_no_more_than_four_connections_are_opened() -> None:
    opened = 0

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal opened
        opened += 1
        await well(stream)

    async with listening(serve) as port, PrefectClient(configured(port)) as prefect:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(prefect.read_flow_run, RUN_ID)
        assert (prefect.requests, opened) == (40, 4)


async def test_a_server_that_does_not_answer_in_time_is_given_up() -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        await request(stream)
        await trio.sleep_forever()

    environment = {"PREFECT_API_REQUEST_TIMEOUT": "0.2", "PREFECT_CLIENT_MAX_RETRIES": "1"}
    async with (
        listening(silent) as port,
        _impatient(configured(port, **environment)) as prefect,
    ):
        with pytest.raises(Unreachable, match=r"no complete answer within 0\.2 s"):
            await prefect.read_flow_run(RUN_ID)
        assert prefect.requests == 2


async def test_a_port_where_nobody_listens_is_named() -> None:
    async with listening(well) as port:
        pass
    async with PrefectClient(configured(port)) as prefect:
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
            await prefect.read_flow_run(RUN_ID)


async def test_a_cancelled_request_leaves_the_client_usable() -> None:
    hang = trio.Event()

    async def serve(stream: trio.abc.Stream) -> None:
        while await request(stream):
            if not hang.is_set():
                hang.set()
                await trio.sleep_forever()
            await stream.send_all(GOOD)

    async with listening(serve) as port, PrefectClient(configured(port)) as prefect:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prefect.read_flow_run, RUN_ID)
            await hang.wait()
            nursery.cancel_scope.cancel()
        assert (await prefect.read_flow_run(RUN_ID)).id == RUN_ID


# --- certificates ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_side(authority: trustme.CA, host: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(context)
    return context


@pytest.fixture
def own_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


async def test_a_certificate_of_an_unknown_authority_is_refused_at_once(
    authority: trustme.CA,
) -> None:
    async with (
        listening(well, _server_side(authority)) as port,
        PrefectClient(configured(port, "https")) as prefect,
    ):
        with pytest.raises(Unreachable, match=r"not trusted .*PREFECT_API_SSL_CERT_FILE"):
            await prefect.read_flow_run(RUN_ID)
        assert prefect.requests == 1


async def test_a_certificate_is_trusted_by_the_file_that_is_set(
    authority: trustme.CA, own_file: str
) -> None:
    async with (
        listening(well, _server_side(authority)) as port,
        PrefectClient(configured(port, "https", PREFECT_API_SSL_CERT_FILE=own_file)) as prefect,
    ):
        assert (await prefect.read_flow_run(RUN_ID)).id == RUN_ID


async def test_a_certificate_is_trusted_by_the_file_of_the_system(
    authority: trustme.CA, own_file: str
) -> None:
    async with (
        listening(well, _server_side(authority)) as port,
        PrefectClient(configured(port, "https", SSL_CERT_FILE=own_file)) as prefect,
    ):
        assert (await prefect.read_flow_run(RUN_ID)).id == RUN_ID


async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, own_file: str
) -> None:
    async with (
        listening(well, _server_side(authority, "other.test")) as port,
        PrefectClient(configured(port, "https", PREFECT_API_SSL_CERT_FILE=own_file)) as prefect,
    ):
        with pytest.raises(Unreachable, match=r"not trusted .*IP address mismatch"):
            await prefect.read_flow_run(RUN_ID)


async def test_any_certificate_is_trusted_when_verification_is_off(authority: trustme.CA) -> None:
    config = {"PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true"}
    async with (
        listening(well, _server_side(authority, "other.test")) as port,
        PrefectClient(configured(port, "https", **config)) as prefect,
    ):
        assert (await prefect.read_flow_run(RUN_ID)).id == RUN_ID


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_redirect_from_http_to_https_is_verified(
    trusted: bool, authority: trustme.CA, own_file: str
) -> None:
    async with listening(well, _server_side(authority)) as secure:
        location = f"https://127.0.0.1:{secure}/api/x".encode()

        async def moved(stream: trio.abc.Stream) -> None:
            while await request(stream):
                head = b"HTTP/1.1 308 Moved\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n"
                await stream.send_all(head % location)

        config = {"PREFECT_API_SSL_CERT_FILE": own_file} if trusted else {}
        async with (
            listening(moved) as port,
            PrefectClient(configured(port, **config)) as prefect,
        ):
            if trusted:
                assert (await prefect.read_flow_run(RUN_ID)).id == RUN_ID
            else:
                with pytest.raises(Unreachable, match="not trusted"):
                    await prefect.read_flow_run(RUN_ID)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), ("no PEM", "no certificate in it")]
)
def test_a_certificate_file_that_is_none_is_said_at_the_start(
    content: str | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    config = configured(1, "https", PREFECT_API_SSL_CERT_FILE=str(path))
    with pytest.raises(ClientMisconfigured, match=f"{path}: {reason}"):
        PrefectClient(config)


# --- proxies ---------------------------------------------------------------------------------


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[bytes] = []

    async def proxy(stream: trio.abc.Stream) -> None:
        while received := await request(stream):
            targets.append(received.partition(b"\r\n")[0])
            await stream.send_all(GOOD)

    async with listening(proxy) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        config = settings(PREFECT_API_URL="http://prefect.test/api")
        async with PrefectClient(config) as prefect:
            await prefect.read_flow_run(RUN_ID)
    assert targets == [b"GET http://prefect.test/api/flow_runs/%s HTTP/1.1" % str(RUN_ID).encode()]


@pytest.mark.parametrize("proxy", ["ftp://u:hunter2@p:1", "socks5://u:hunter2@p:1"])
def test_a_proxy_that_cannot_be_used_is_said_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ClientMisconfigured, match="the proxy in HTTP_PROXY") as caught:
        PrefectClient(configured(1))
    assert "hunter2" not in str(caught.value)


def test_http_urls_do_not_pay_for_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("certificates were loaded")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    PrefectClient(configured(1))
    with pytest.raises(AssertionError):
        PrefectClient(configured(1, "https"))


def test_each_request_is_not_told_to_the_log_with_its_url() -> None:
    import logging

    PrefectClient(settings(), transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
