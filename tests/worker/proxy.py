"""A TCP proxy in front of a server, so that a test can take the network away from one worker and give it back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.connection import parse_url
from sqlalchemy.engine import make_url


class Proxy:
    """Forwards connections to `target`, a path or (host, port), while it is `up`; `cut` drops them and refuses more."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0

    def up(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            _close(listener)
        for connection in list(self._open):
            _close(connection)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._forward(client, listener)

    def _forward(self, client: socket.socket, listener: socket.socket) -> None:
        try:
            server = self._connect()
        except OSError:
            _close(client)
            return
        self._open |= {client, server}
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()
        if self._listener is not listener:  # cut meanwhile
            _close(client)
            _close(server)

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        return server


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    _close(source)
    _close(sink)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def postgres_proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of the server of `url`, and the URL that goes through it."""
    parsed = make_url(url)
    host, port = parsed.host or str(parsed.query.get("host", "127.0.0.1")), parsed.port or _port(parsed.query)
    proxy = Proxy(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))
    proxy.up()
    through = parsed.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=proxy.port)
    try:
        yield proxy, through.render_as_string(hide_password=False)
    finally:
        proxy.cut()


def _port(query: Any) -> int:
    return int(query.get("port", 5432))


@contextmanager
def redis_proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    """The same for Redis."""
    known = parse_url(url)
    proxy = Proxy(known["path"] if "path" in known else (known.get("host", "127.0.0.1"), known.get("port", 6379)))
    proxy.up()
    login = f"{known.get('username', '')}:{known['password']}@" if "password" in known else ""
    try:
        yield proxy, f"redis://{login}127.0.0.1:{proxy.port}/{known.get('db', 0)}"
    finally:
        proxy.cut()
