"""The transactions of one attempt, each repeated over an outage of Postgres until it is done or pointless.

Every lifecycle function may be repeated after an answer that was lost, so a repeat never doubles anything; and each
thread writes one thing after the other, so nothing overtakes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

log = structlog.get_logger(__name__)

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0


def is_outage(error: DBAPIError) -> bool:
    """Whether the same statement may succeed later: the server or the way to it is at fault, not the statement."""
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def write_through(engine: Engine, write: Callable[[Connection], T], wait: Callable[[float], None]) -> T:
    """The result of `write` in a transaction of its own.

    After an outage `wait` is called with a pause in seconds before the next try; it may raise to give up.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            with engine.begin() as conn:
                return write(conn)
        except DBAPIError as error:
            if not is_outage(error):
                raise
            log.warning("the database did not answer; trying again", error=str(error.orig))
        wait(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
