"""Who asks: the API key in whose name a transaction writes.

It stands on the Connection, so that every event of the transaction names it, whichever function writes the event. The
api sets it; what workers and operators do has none.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from jobs.keys import Principal

_OPTION = "traind_caller"


def sign(conn: Connection, caller: Principal) -> None:
    """From now on what is written by `conn` is written for this caller."""
    conn.execution_options(**{_OPTION: caller})


def created_by(conn: Connection) -> dict[str, Any] | None:
    """The column `job.created_by` of what is made now."""
    caller = _caller(conn)
    return None if caller is None else {"key_id": caller.key_id, "name": caller.name}


def signature(conn: Connection) -> dict[str, Any]:
    """What an event's data says of the caller: the key's id."""
    caller = _caller(conn)
    return {} if caller is None else {"key_id": caller.key_id}


def _caller(conn: Connection) -> Principal | None:
    caller: Principal | None = conn.get_execution_options().get(_OPTION)
    return caller
