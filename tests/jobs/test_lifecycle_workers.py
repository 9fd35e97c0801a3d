"""The list of workers."""

from __future__ import annotations

from sqlalchemy import Engine, select

from jobs.lifecycle.workers import see_worker, stop_worker
from jobs.tables import worker
from tests.jobs.scenario import add_worker


def test_a_worker_is_seen_and_stops(engine: Engine) -> None:
    ident = add_worker(engine)
    with engine.begin() as conn:
        first = conn.execute(select(worker)).one()
        see_worker(conn, ident)
        seen = conn.execute(select(worker)).one()
        stop_worker(conn, ident)
        stopped = conn.execute(select(worker)).one()
    assert (first.queues, first.device, first.slots, first.stopped_at) == (["default"], "cpu", 1, None)
    assert first.last_seen_at < seen.last_seen_at < stopped.last_seen_at
    assert stopped.stopped_at is not None
