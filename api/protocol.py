"""HTTP on a connection: uvicorn's protocol, with bounds on what a client may send and on how slowly.

A request that is not HTTP, whose head is too large, or that comes too slowly (slowloris) is refused with a problem
document, and its connection is closed. Answers may take as long as they do, and so may the pause between two requests
(uvicorn's keep-alive). Used by `api.__main__`.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal

import httptools
import structlog
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import CUT_OFF, KINDS, problem

log = structlog.get_logger("api")

MAX_HEADERS = 100
MAX_HEAD_BYTES = 65_536
LEAST_BYTES_PER_SECOND = 500
"""A body that comes more slowly on average is not waited for; one of the largest size then takes half an hour."""
READ_SECONDS = 20.0
LINGER_SECONDS = 1.0
"""So long what a refused client still sends is read and dropped: a reset could take the answer away from it."""
TOO_LARGE = ("head-too-large", f"at most {MAX_HEADERS} headers, and {MAX_HEAD_BYTES:,} bytes with the address")

Part = Literal["head", "body"]


class BoundedProtocol(HttpToolsProtocol):
    """`read_seconds` bounds the time for a whole head, and each silence within a body."""

    read_seconds = READ_SECONDS
    _awaits: Part | None = None
    _timer: asyncio.TimerHandle | None = None
    _nothing_came = True
    _refused = False
    _refusal = ("malformed-request", "this is not HTTP/1.1 as it is understood here")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._nothing_came = False
        if self._awaits is None:  # the first bytes of the next request
            self._await_head()
        self._heard_at = self.loop.time()
        self._n_bytes += len(data)
        try:
            with suppress(httptools.HttpParserUpgrade):  # another protocol is never agreed to
                self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
            return
        if self._awaits == "head" and self._n_bytes > MAX_HEAD_BYTES:  # one header without an end
            self._refuse(*TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._awaits != "head":  # sent without waiting for the answer before
            self._await_head()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = TOO_LARGE
            raise ValueError("the head is too large")  # ends the parser

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._start("body")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._awaits = None

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._start("head")

    def _start(self, part: Part) -> None:
        """From now on this part of a request is awaited. The timer is left to run: it looks at what is awaited then."""
        self._awaits = part
        self._since = self._heard_at = self.loop.time()
        self._n_bytes = 0
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline(), self._look)

    def _deadline(self) -> float:
        whole = self._since + self.read_seconds
        if self._awaits == "head":
            return whole
        return min(whole + self._n_bytes / LEAST_BYTES_PER_SECOND, self._heard_at + self.read_seconds)

    def _look(self) -> None:
        self._timer = None
        if self._awaits is None or self.transport.is_closing():
            return
        if self.flow.read_paused:  # we do not read: the client is not to blame
            self._start(self._awaits)
        elif self.loop.time() < self._deadline():
            self._timer = self.loop.call_at(self._deadline(), self._look)
        elif self._nothing_came:
            self.transport.close()
        else:
            detail = f"the request's {self._awaits} did not come within {self.read_seconds:g} s, or too slowly"
            self._refuse("request-timeout", detail)

    def _refuse(self, code: str, detail: str) -> None:
        """Answer with the problem, unless another answer is under way, and close the connection."""
        state: dict[str, Any] = {"request_id": uuid.uuid4().hex}
        if self.cycle is not None and not self.cycle.response_complete:
            own_id, state = state["request_id"], self.cycle.scope["state"]
            state.setdefault("request_id", own_id)  # what came at once with the head is seen before the app runs
            state[CUT_OFF] = code
            answerable = self._awaits == "body" and not (self.cycle.response_started or self.pipeline)
        else:
            answerable = True
            log.info("request refused", status=KINDS[code].status, code=code, request_id=state["request_id"])
        self._refused, self._awaits = True, None
        if not answerable:
            self.transport.close()
            return
        self.transport.write(_answer(code, detail, state))
        if self.cycle is not None:
            self.cycle.disconnected = True  # the endpoint's own answer would come too late
            self.cycle.message_event.set()
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def protocol(read_seconds: float) -> type[BoundedProtocol]:
    """The protocol with this bound, for uvicorn, which makes one for each connection."""
    return type("Protocol", (BoundedProtocol,), {"read_seconds": read_seconds})


def _answer(code: str, detail: str, state: dict[str, Any]) -> bytes:
    headers = {"Connection": "close", "X-Request-Id": state["request_id"], "X-Content-Type-Options": "nosniff"}
    response = problem(Request({"type": "http", "state": state}), code, detail, headers=headers)
    status = HTTPStatus(response.status_code)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
