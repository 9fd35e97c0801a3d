"""What a job's row, record, attempts and metrics must say of it at any time; the oracle of the state machine.

`Story` is told what happened, in the words of the protocol, and knows what must follow; `check` compares it with the
database. It is written from the rules in docs/job-states.md, not from the code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection, Row, select

from jobs.metrics import store
from jobs.states import FINAL, TRANSITIONS, State
from jobs.tables import attempt, job, job_event

MOVES = {(t.source, t.target, t.event) for t in TRANSITIONS}
CRASHES = ("crashed", "lost")


@dataclass
class Story:
    """One job as it should be."""

    job_id: UUID
    max_attempts: int
    line: dict[int, int] = field(default_factory=dict)
    """Attempt of each point of the one line of history, by step."""
    saved: dict[int, int] = field(default_factory=dict)
    """Attempt of each complete checkpoint in it, by step."""
    starts_over: bool = False
    damaged: set[int] = field(default_factory=set)
    """Attempts that crashed because what they started from was damaged: the first in a row counts as no crash."""
    version: int = 0

    @property
    def resume_step(self) -> int:
        return 0 if self.starts_over else max(self.saved, default=0)

    def started(self, from_step: int) -> None:
        assert from_step == self.resume_step
        self.starts_over = False
        self.line = {step: number for step, number in self.line.items() if step <= from_step}
        self.saved = {step: number for step, number in self.saved.items() if step <= from_step}

    def flushed(self, number: int, first: int, last: int) -> None:
        self.line |= dict.fromkeys(range(first, last + 1), number)

    def check(self, conn: Connection) -> None:
        row = conn.execute(select(job).where(job.c.id == self.job_id)).one()
        attempts = conn.execute(select(attempt).where(attempt.c.job_id == self.job_id).order_by("number")).all()
        events = conn.execute(select(job_event).where(job_event.c.job_id == self.job_id).order_by("id")).all()
        self._check_moves(row, events)
        self._check_attempts(row, attempts, events)
        self._check_steps(row)
        self._check_points(conn)
        assert row.version >= self.version
        self.version = row.version

    def _check_moves(self, row: Row, events: list[Row]) -> None:
        moves = [e for e in events if e.to_state is not None]
        assert {(e.from_state, e.to_state, e.kind) for e in moves} <= MOVES
        assert [e.from_state for e in moves] == [None, *(e.to_state for e in moves[:-1])]
        assert row.state == moves[-1].to_state
        assert {e.kind for e in moves if e.from_state in FINAL} <= {"retried"}
        assert (row.finished_at is not None) == (row.state in FINAL)

    def _check_attempts(self, row: Row, attempts: list[Row], events: list[Row]) -> None:
        assert [a.number for a in attempts] == list(range(1, row.attempt + 1))
        live = [a.lease_token for a in attempts if a.outcome is None]
        assert live == ([row.lease_token] if row.state == State.RUNNING else [])
        since = max((e.id for e in events if e.kind == "retried"), default=0)
        forgotten = max((e.attempt for e in events if e.id <= since), default=0)
        crashes = sum(a.outcome in CRASHES for a in attempts if a.number > forgotten and not self._excused(a.number))
        assert row.crash_count == crashes <= self.max_attempts
        if crashes == self.max_attempts:
            assert row.state in (State.FAILED, State.CANCELLED)

    def _excused(self, number: int) -> bool:
        return number in self.damaged and number - 1 not in self.damaged

    def _check_steps(self, row: Row) -> None:
        assert row.restart == self.starts_over
        assert (row.saved_step or 0) == self.resume_step
        assert (row.saved_step is None) == (self.resume_step == 0)
        assert row.observed_step >= self.resume_step

    def _check_points(self, conn: Connection) -> None:
        series = store.read(conn, self.job_id, ["train/loss"])["train/loss"]
        shown = list(zip(map(int, series.steps), map(int, series.attempts), strict=True))
        assert shown == ([] if self.starts_over else sorted(self.line.items()))
        assert [step for step, _ in shown] == list(range(1, len(shown) + 1)), "a step is missing"
