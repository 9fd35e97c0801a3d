"""Connections that give up on a Postgres that hangs. Used by the api, whose callers wait for an answer.

The server's own limits (statement_timeout, lock_timeout) end a statement that waits for a lock. A server that is frozen
keeps none of them, and its kernel still acknowledges packets: that is bounded here, on the client's side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from psycopg import Connection, OperationalError
from sqlalchemy import Engine, event

GRACE_SECONDS = 1.0
"""How much longer the client waits than the server does, so that a server that lives answers for itself."""


def server_limits(seconds: float) -> str:
    """libpq's `options` by which the server itself ends what takes longer."""
    limit = math.ceil(seconds * 1000)
    return f"-c statement_timeout={limit} -c lock_timeout={limit}"


def bound(engine: Engine, seconds: float) -> None:
    """Let the engine's connections raise OperationalError after `seconds` (and GRACE_SECONDS) without an answer."""

    class Bounded(Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            if timeout is not None:
                return super().wait(gen, interval, timeout)
            limit, began = seconds + GRACE_SECONDS, time.monotonic()
            try:
                return super().wait(gen, interval, limit)
            except OperationalError:  # psycopg has no public name for the one that means "too late"
                if time.monotonic() - began < limit:
                    raise
                self.pgconn.finish()
                raise OperationalError(f"the server did not answer within {limit:g} s") from None

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: list[Any], options: Mapping[str, Any]) -> Connection[Any]:
        return Bounded.connect(*arguments, **options)
