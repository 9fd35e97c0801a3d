"""A connection to the api's protocol in this process, on a clock that goes only as far as a test lets it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from api.access import Access
from api.protocol import protocol

ROUNDS = 50
"""Of the event loop: more than anything takes that is done without waiting."""
PIECE = 50_000
"""The other end reads in the same thread, so no more is sent at once than the socket holds."""


class Clock(asyncio.SelectorEventLoop):
    """An event loop at the time `now`, which only a test changes."""

    now = 0.0

    def time(self) -> float:
        return self.now


class Conversation:
    """The client's end. The other end answers each request with the length of its body and with `content`; while it is
    `busy`, it neither reads nor answers.
    """

    def __init__(self, clock: Clock, connection: socket.socket) -> None:
        self.content = b""
        self.busy = False
        self.closed = False
        self._clock = clock
        self._connection = connection

    @property
    def now(self) -> float:
        return self._clock.now

    def say(self, data: bytes) -> None:
        for piece in _pieces(data):
            self._connection.sendall(piece)
            self._go_on()

    def wait(self, seconds: float) -> None:
        self._clock.now += seconds
        self._go_on()

    def heard(self) -> bytes:
        """What has come since the last call; `closed` then says whether that was all."""
        parts = []
        while not self.closed:
            self._go_on()
            try:
                parts.append(self._connection.recv(1_000_000))
            except BlockingIOError:
                break
            self.closed = not parts[-1]
        return b"".join(parts)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        while self.busy:
            await asyncio.sleep(0)
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            length, more = length + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"%d bytes;" % length, *_pieces(self.content)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _go_on(self) -> None:
        for _ in range(ROUNDS):
            self._clock.run_until_complete(asyncio.sleep(0))


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[begin : begin + PIECE] for begin in range(0, len(data), PIECE))


@contextmanager
def conversation(read_seconds: float) -> Iterator[Conversation]:
    ours, theirs = socket.socketpair()
    with closing(Clock()) as clock, ours, theirs:
        ours.setblocking(False)
        client = Conversation(clock, ours)
        kind = protocol(read_seconds)
        config = uvicorn.Config(Access(client.serve), http=kind, log_config=None, access_log=False)
        config.load()
        accepted = clock.connect_accepted_socket(lambda: kind(config, ServerState(), {}, clock), theirs)
        transport, _ = clock.run_until_complete(accepted)
        try:
            yield client
        finally:
            transport.abort()
            client.wait(0)
