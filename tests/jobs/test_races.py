"""The verbs raced against each other, and against whoever claims, ends or reaps the attempt meanwhile.

Two at once must come out as one after the other: each pair is run with the second behind the first one's open
transaction, and compared with a twin job on which they ran in turn. What skips locked rows may also have done nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, select

from jobs.errors import Fenced, StateConflict
from jobs.lifecycle.claim import claim
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.reap import reap
from jobs.states import TRANSITIONS, ShownState
from jobs.tables import job_event, meta
from tests.jobs.scenario import add_job, add_worker, attempts, events, expire, job_row, start, until, waits_for_lock
from tests.jobs.verbs import ENDS, VERBS, ask, end, save

NOTHING = "nothing"


@dataclass(frozen=True)
class Case:
    """A job on a queue of its own, and the lease of its attempt where one runs."""

    engine: Engine
    project_id: int
    worker: UUID
    job_id: UUID
    queue: str
    lease: Lease | None

    def do(self, conn: Connection, name: str) -> str:
        """Act, and say what came of it."""
        try:
            return str(self._act(conn, name))
        except (StateConflict, Fenced) as error:
            return error.code

    def _act(self, conn: Connection, name: str) -> object:
        if name in VERBS:
            return VERBS[name](conn, project_id=self.project_id, job_id=self.job_id)
        if name in ENDS:
            return ENDS[name](conn, self.lease) if self.lease else NOTHING
        if name == "claim":
            known: dict[str, Any] = {"device": "cpu", "threads": 1, "lease_seconds": 60.0}
            claimed = claim(conn, worker_id=self.worker, queues=[self.queue], **known)
            return "claimed" if claimed else NOTHING
        cluster = conn.execute(select(meta.c.cluster_id)).scalar_one()
        reaped = reap(conn, cluster_id=cluster, suspicion_seconds=3_600, lease_seconds=60)
        return next((one.state for one in reaped if one.job_id == self.job_id), NOTHING)

    def outcome(self) -> tuple[Any, ...]:
        row = job_row(self.engine, self.job_id)
        columns = row.state, row.requested, row.crash_count, row.restart, row.observed_step, row.saved_step
        return columns, events(self.engine, self.job_id), [a.outcome for a in attempts(self.engine, self.job_id)]


STATES = ["queued", "running", "expired", "pausing", "paused", "failed", "cancelled"]
OTHERS = [*ENDS, "claim", "reap"]


@pytest.fixture
def make(engine: Engine, project_id: int) -> Callable[[str], Case]:
    """A job in one of STATES."""
    worker = add_worker(engine)

    def make_one(state: str) -> Case:
        queue = f"q-{uuid4().hex}"
        job_id = add_job(engine, project_id, resources={"queue": queue})
        lease = None
        if state not in ("queued", "paused"):
            lease = start(engine, worker, queues=[queue]).lease
        if state in ("expired", "failed"):
            save(engine, lease, 4)  # type: ignore[arg-type]
        if state == "expired":
            expire(engine, job_id)
        if state == "failed":
            end(engine, lease, "fail")  # type: ignore[arg-type]
        for verb in {"pausing": ["pause"], "paused": ["pause"], "cancelled": ["cancel"]}.get(state, []):
            ask(engine, project_id, job_id, verb)
        if state == "cancelled":
            end(engine, lease, "give up")  # type: ignore[arg-type]
        return Case(engine, project_id, worker, job_id, queue, lease)

    return make_one


def pairs(state: str) -> Iterator[tuple[str, str]]:
    """In either order; who holds no lease, or none any more, is one of them all."""
    others = OTHERS if state in ("running", "expired", "pausing") else ["give up", "claim", "reap"]
    for verb in VERBS:
        yield from ((verb, other) for other in [*VERBS, *others])
        yield from ((other, verb) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_two_at_once_come_out_as_one_after_the_other(make: Callable[[str], Case], state: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        for first, second in pairs(state):
            raced = make(state)
            found = race(raced, first, second, pool), raced.outcome()
            if found != in_turn(make(state), first, second):
                assert second in ("claim", "reap"), (first, second)
                assert found == in_turn(make(state), first, None), (first, second)


def race(case: Case, first: str, second: str, pool: ThreadPoolExecutor) -> tuple[str, str]:
    """The second begins while the first has not committed."""

    def behind() -> str:
        with case.engine.begin() as conn:
            return case.do(conn, second)

    with case.engine.begin() as conn:
        one = case.do(conn, first)
        other = pool.submit(behind)
        until(lambda: other.done() or waits_for_lock(case.engine))
    return one, other.result(10)


def in_turn(case: Case, first: str, second: str | None) -> tuple[tuple[str, str], tuple[Any, ...]]:
    with case.engine.begin() as conn:
        one = case.do(conn, first)
    if second is None:
        return (one, NOTHING), case.outcome()
    with case.engine.begin() as conn:
        other = case.do(conn, second)
    return (one, other), case.outcome()


@pytest.mark.parametrize("state", ["queued", "running", "paused", "failed"])
def test_all_at_once_leave_one_legal_line_of_moves(make: Callable[[str], Case], state: str) -> None:
    everybody = [*VERBS, *OTHERS]
    barrier = threading.Barrier(len(everybody))

    def act(case: Case, name: str) -> str:
        barrier.wait()
        with case.engine.begin() as conn:
            return case.do(conn, name)

    with ThreadPoolExecutor(len(everybody)) as pool:
        for _ in range(8):
            case = make(state)
            list(pool.map(partial(act, case), everybody))
            check_moves(case)


def check_moves(case: Case) -> None:
    """Each move begins where the one before ended, and is in the list; the row is where the last one led."""
    with case.engine.connect() as conn:
        e = job_event.c
        query = select(e.from_state, e.to_state, e.kind).where(e.job_id == case.job_id, e.to_state.is_not(None))
        moves = list(conn.execute(query.order_by(e.id)))
    assert {(m.from_state, m.to_state, m.kind) for m in moves} <= {(t.source, t.target, t.event) for t in TRANSITIONS}
    assert [m.from_state for m in moves] == [None, *(m.to_state for m in moves[:-1])]
    assert job_row(case.engine, case.job_id).state == moves[-1].to_state


def test_many_who_ask_the_same_are_answered_the_same_and_obeyed_once(make: Callable[[str], Case]) -> None:
    askers = 6
    barrier = threading.Barrier(askers)

    def act(case: Case, verb: str) -> ShownState:
        barrier.wait()
        return ask(case.engine, case.project_id, case.job_id, verb)

    with ThreadPoolExecutor(askers) as pool:
        for state, verb, kind in (
            ("queued", "pause", "paused"),
            ("running", "pause", "pause-requested"),
            ("running", "cancel", "cancel-requested"),
            ("paused", "resume", "resumed"),
            ("pausing", "resume", "pause-withdrawn"),
            ("failed", "retry from start", "retried"),
            ("cancelled", "retry", "retried"),
        ):
            case = make(state)
            answers = set(pool.map(partial(act, case), [verb] * askers))
            assert len(answers) == 1, (state, verb, answers)
            assert events(case.engine, case.job_id).count(kind) == 1
