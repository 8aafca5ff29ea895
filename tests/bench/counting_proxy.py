"""A loopback proxy that counts HTTP requests by their request lines, and changes nothing."""

from __future__ import annotations

import re
import socket
import threading
from types import TracebackType
from typing import Self

REQUEST_LINE = re.compile(
    rb"(?:^|\r\n|[}\]])(?:GET|POST|PUT|PATCH|DELETE) /api/[^ ]* HTTP/1\.1\r\n"
)


class CountingProxy:
    """Passes bytes on to a port of this host. `requests` counts what went through."""

    def __init__(self, target: int) -> None:
        self.requests = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, target, counts in ((client, server, True), (server, client, False)):
                arguments = (source, target, counts)
                threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(65536):
                if counts:
                    self.requests += len(REQUEST_LINE.findall(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()
