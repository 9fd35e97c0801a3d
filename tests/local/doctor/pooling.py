"""A pooler in front of a real PostgreSQL, as small as one can be: it answers the start itself, as PgBouncer does, and
lends a server connection for one transaction, or for a session.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import psycopg
from sqlalchemy.engine import make_url

Mode = Literal["transaction", "session", "refuses-options"]
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
INVENTED_PID = 4_242
PARAMETERS = {"server_version": "16.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}


class Pooler:
    def __init__(self, url: str, mode: Mode) -> None:
        self._url, self._mode = url, mode
        self._idle: list[socket.socket] = []
        self._links: list[socket.socket] = []
        self._owned: list[psycopg.Connection] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends a waiting accept(), which close() does not
        self._listener.close()
        for server in self._owned:
            server.close()
        for link in self._links:  # one may still be lent: a client's thread ends when it likes
            link.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(ConnectionError):
            if self._greet(client):
                self._relay(client)

    def _greet(self, client: socket.socket) -> bool:
        (length,) = struct.unpack("!I", _exactly(client, 4))
        start = _exactly(client, length - 4)
        if struct.unpack("!I", start[:4])[0] in (SSL_REQUEST, GSS_REQUEST):
            client.sendall(b"N")
            return self._greet(client)
        if self._mode == "refuses-options" and b"options\0" in start:
            text = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
            client.sendall(_message(b"E", text))
            return False
        told = b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in PARAMETERS.items())
        key = _message(b"K", struct.pack("!II", INVENTED_PID, 1))
        client.sendall(_message(b"R", struct.pack("!I", 0)) + told + key + _message(b"Z", b"I"))
        return True

    def _relay(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        while True:
            kind, body = _read(client)
            if kind == b"X":
                break
            server = server or self._borrow()
            server.sendall(_message(kind, body))
            if kind in b"QS":
                ready = self._answer(server, client)
                if ready == b"I" and self._mode == "transaction":
                    self._give_back(server)
                    server = None
                client.sendall(_message(b"Z", ready))
        if server is not None:
            self._give_back(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> bytes:
        """Hand on everything before ReadyForQuery; its transaction status. Who waits for it finds the server lent or
        given back already.
        """
        while (read := _read(server))[0] != b"Z":
            client.sendall(_message(*read))
        return read[1]

    def _borrow(self) -> socket.socket:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            connection = psycopg.connect(self._url, autocommit=True)
            self._owned.append(connection)
            link = socket.socket(fileno=os.dup(connection.fileno()))
            link.setblocking(True)
            self._links.append(link)
            return link

    def _give_back(self, server: socket.socket) -> None:
        with self._lock:
            self._idle.append(server)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _read(link: socket.socket) -> tuple[bytes, bytes]:
    kind = _exactly(link, 1)
    (length,) = struct.unpack("!I", _exactly(link, 4))
    return kind, _exactly(link, length - 4)


def _exactly(link: socket.socket, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes:
        part = link.recv(n_bytes - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


@contextmanager
def pooled(url: str, mode: Mode) -> Iterator[str]:
    """The URL of a pooler in front of the database of `url`."""
    pooler = Pooler(url, mode)
    parsed = make_url(url)
    through = parsed.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=pooler.port)
    try:
        yield through.render_as_string(hide_password=False)
    finally:
        pooler.close()
