"""The socket the API listens on. We open it, the API inherits it: the port is known at once, and connections wait
in the queue while a dead API is restarted.
"""

from __future__ import annotations

import http.client
import socket
from types import TracebackType
from urllib.parse import urlsplit

from local.errors import PortTaken

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  not bound to: where a client on this machine finds it


class Listener:
    """A listening TCP socket on `host` and `port` (0: any free one). Raises PortTaken where it can't be had."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=256)
        except OSError as error:
            raise PortTaken(
                f"can't listen on {host} port {port}: {error.strerror}; choose another --port, or 0"
            ) from error
        reached = ANY_ADDRESS.get(host, host)
        self.url = f"http://{f'[{reached}]' if ':' in reached else reached}:{self._socket.getsockname()[1]}"

    def fileno(self) -> int:
        return self._socket.fileno()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there now."""
    try:
        with Listener(host, port):
            return True
    except PortTaken:
        return False


def answers(url: str, path: str) -> bool:
    """Whether a GET of `path` is answered with 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
