"""An HTTP server that answers by a script, for what a healthy service never does: the network's seam."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """Each request takes the next step of `steps`; the last one is repeated. `seen` has what came."""

    steps: list[Step]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)


def answer(document: Any, status: int = 200, **headers: str) -> Step:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **given}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return step


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def break_off(body: bytes, total: int, **headers: str) -> Step:
    """Announce `total` bytes, send only `body`, and close the connection."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        answer(body, Content_Length=str(total), **headers)(handler)
        handler.close_connection = True

    return step


@contextmanager
def scripted(*steps: Step) -> Iterator[Scripted]:
    script = Scripted(list(steps))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            step = script.steps.pop(0) if len(script.steps) > 1 else script.steps[0]
            step(self)

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: the tests look at `seen`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
