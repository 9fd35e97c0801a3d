"""The lifecycle as a state machine on a real Postgres: several workers, what befalls them, and users who interfere.

Workers claim (woken once, twice or not at all), find what they start from damaged, train, flush, save, drain, crash,
die and wake up late; users cancel, pause, resume and retry at any time. After each turn the job it touched is compared
with `tests.jobs.history`.

It is one rule that picks among what can happen now: hypothesis switches some rules off in each of its runs, and a life
without claims, or without ends, never comes to where the faults are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, update

from jobs.blobs import ensure_partitions
from jobs.errors import Fenced, StateConflict
from jobs.lifecycle.claim import claim
from jobs.lifecycle.lease import Lease, after
from jobs.lifecycle.work import begin_checkpoint, crash, heartbeat, record_metrics, record_progress, set_aside
from jobs.states import Request, State, possible, shown
from jobs.tables import job
from tests.jobs.history import Story
from tests.jobs.scenario import DAMAGE, add_job, add_worker, expire, job_row, now_due, segment
from tests.jobs.verbs import ENDS, VERBS, ask, end, reap_now, save

EXAMPLES = int(os.environ.get("TRAIND_TEST_MACHINE_EXAMPLES", "20"))
"""How many lives the machine tries, each of at most STEPS turns."""
STEPS = 60
ALIVE = 2
"""Jobs at a time that can still move."""


@dataclass(frozen=True)
class Turn:
    """What is drawn for one turn; each action takes what it needs."""

    action: int
    which: int
    what: int
    again: bool
    """An answer is lost, so the call is repeated; or a doorbell rings twice."""
    other: bool
    flushes: tuple[tuple[int, bool, bool], ...]
    """Steps of each flush, whether its last step is saved, whether the answer is lost and the flush repeated."""


NUMBER = st.integers(0, 5_039)
FLUSH = st.tuples(st.integers(1, 3), st.booleans(), st.booleans())
FLUSHES = st.lists(FLUSH, max_size=2).map(tuple)
TURNS = st.builds(Turn, NUMBER, NUMBER, NUMBER, st.booleans(), st.booleans(), FLUSHES)


@dataclass
class Trainer:
    """What runs under a lease: where it is, and its last flush."""

    lease: Lease
    step: int
    seq: int = 0
    fresh_from: int | None = None
    """Id of the checkpoint that it starts from, as long as it has computed nothing."""


class Lifecycle(RuleBasedStateMachine):
    def __init__(self, engine: Engine, project_id: int, workers: list[UUID]) -> None:
        super().__init__()
        self.engine, self.project_id, self.workers = engine, project_id, workers
        self.queue = f"q-{uuid4().hex}"
        self.stories: dict[UUID, Story] = {}
        self.done: set[UUID] = set()
        self.running: list[Trainer] = []
        self.stale: list[Trainer] = []
        self.touched: UUID | None = None

    @initialize(turn=TURNS)
    def begin(self, turn: Turn) -> None:
        ensure_partitions(self.engine)  # as every worker does, all the time
        self.submit(turn)

    @rule(turn=TURNS)
    def something_happens(self, turn: Turn) -> None:
        actions = self.actions()
        action = actions[turn.action % len(actions)]
        note(action.__name__)
        action(turn)

    @invariant()
    def the_job_is_as_it_should_be(self) -> None:
        if self.touched is not None:
            with self.engine.connect() as conn:
                self.stories[self.touched].check(conn)

    def actions(self) -> list[Callable[[Turn], None]]:
        """What can happen now; more often what stands here more often."""
        alive = len(self.stories.keys() - self.done)
        actions = [self.user_does_what_is_possible] * 2 + [self.user_asks_for_what_is_not]
        actions += [self.submit] if alive < ALIVE else []
        actions += [self.wake] * 3 if alive > len(self.running) else []
        actions += [self.train, self.give_up, self.end_attempt, self.lose_worker] * 2 if self.running else []
        actions += [self.find_damage] if any(trainer.fresh_from for trainer in self.running) else []
        return actions + ([self.wake_up_late] if self.stale else [])

    def submit(self, turn: Turn) -> None:
        max_attempts = 1 + turn.what % 3
        resources = {"queue": self.queue, "max_attempts": max_attempts}
        kept = {"keep_last": None}  # a story knows no retention
        self.touched = add_job(self.engine, self.project_id, resources=resources, checkpoints=kept)
        self.stories[self.touched] = Story(self.touched, max_attempts)

    def wake(self, turn: Turn) -> None:
        """A worker hears the doorbell, maybe twice: it claims the best due job."""
        for job_id in self.stories if turn.other else ():
            now_due(self.engine, job_id)
        worker_id = self.workers[turn.which % len(self.workers)]
        for _ in range(1 + turn.again):
            known: dict[str, Any] = {"device": "cpu", "threads": 1, "lease_seconds": 3_600}
            with self.engine.begin() as conn:
                claimed = claim(conn, worker_id=worker_id, queues=[self.queue], **known)
            if claimed is not None:
                self.stories[claimed.lease.job_id].started(claimed.from_step)
                origin = claimed.checkpoint.id if claimed.checkpoint else None
                self.running.append(Trainer(claimed.lease, claimed.from_step, fresh_from=origin))
                self.touched = claimed.lease.job_id

    def train(self, turn: Turn) -> None:
        self.advance(self.trainer(turn), turn)

    def find_damage(self, turn: Turn) -> None:
        """What an attempt is to start from is damaged: it starts from the one before. Or the next attempt does, where
        only the trainer can see it.
        """
        fresh = [trainer for trainer in self.running if trainer.fresh_from]
        trainer = fresh[turn.which % len(fresh)]
        self.touched = trainer.lease.job_id
        story = self.stories[self.touched]
        del story.saved[trainer.step]
        if turn.other:
            self.crash_by_damage(trainer, story, again=turn.again)
            return
        damaged: dict[str, Any] = {"checkpoint_id": trainer.fresh_from, "damage": "a bit has flipped"}
        for _ in range(1 + turn.again):
            with self.engine.begin() as conn:
                point = set_aside(conn, trainer.lease, **damaged)
        story.started(point.step)
        trainer.step = point.step
        trainer.fresh_from = point.checkpoint.id if point.checkpoint else None

    def crash_by_damage(self, trainer: Trainer, story: Story, *, again: bool) -> None:
        """Counted as a crash only where the attempt before ended so, too."""
        asked, number = self.requested(trainer), trainer.lease.attempt
        for _ in range(1 + again):
            with self.engine.begin() as conn:
                state = crash(conn, trainer.lease, error=DAMAGE, log=None, damaged=trainer.fresh_from)
            if number - 1 not in story.damaged:
                assert state == {Request.NONE: "queued", Request.PAUSE: "paused", Request.CANCEL: "cancelled"}[asked]
        story.damaged.add(number)
        self.retire(trainer)

    def give_up(self, turn: Turn) -> None:
        """The worker drains, or heeds a pause; with a checkpoint where there was time for it."""
        trainer = self.trainer(turn)
        self.advance(trainer, turn)
        asked = self.requested(trainer)
        state = self.end(trainer, "give up", again=turn.again)
        assert state == {Request.NONE: "queued", Request.PAUSE: "paused", Request.CANCEL: "cancelled"}[asked]

    def end_attempt(self, turn: Turn) -> None:
        trainer = self.trainer(turn)
        self.advance(trainer, turn)
        cancelled = self.requested(trainer) is Request.CANCEL
        state = self.end(trainer, ["crash", "fail", "succeed"][turn.what % 3], again=turn.again)
        assert (state == "cancelled") == cancelled
        if state == "succeeded":
            self.done.add(trainer.lease.job_id)

    def lose_worker(self, turn: Turn) -> None:
        """Its lease runs out; it may renew it late, before anybody took the attempt."""
        trainer = self.trainer(turn)
        self.advance(trainer, turn)
        expire(self.engine, trainer.lease.job_id)
        if turn.other:
            with self.engine.begin() as conn:
                request = heartbeat(conn, trainer.lease, lease_seconds=3_600)
            assert request is self.requested(trainer)
            assert reap_now(self.engine) == []
        else:
            assert [one.job_id for one in reap_now(self.engine)] == [trainer.lease.job_id]
            self.retire(trainer)

    def wake_up_late(self, turn: Turn) -> None:
        """What a lost worker still wants to write is dropped. Only how its own attempt ended may be said again."""
        trainer = self.stale[turn.which % len(self.stale)]
        self.touched = trainer.lease.job_id
        before, step = job_row(self.engine, self.touched), trainer.step + 1
        with pytest.raises(Fenced):
            self.flush(trainer, step, step, seq=trainer.seq + 1)
        with pytest.raises(Fenced):
            save(self.engine, trainer.lease, step)
        with pytest.raises(Fenced), self.engine.begin() as conn:
            heartbeat(conn, trainer.lease, lease_seconds=3_600)
        for how in ENDS:
            with suppress(Fenced):
                end(self.engine, trainer.lease, how)
        assert job_row(self.engine, self.touched) == before

    def user_does_what_is_possible(self, turn: Turn) -> None:
        job_id = self.job(turn)
        before = job_row(self.engine, job_id)
        here = possible(shown(State(before.state), Request(before.requested)))
        verbs = [verb for verb in VERBS if verb.partition(" ")[0] in here]
        if not verbs:
            return
        verb = verbs[turn.what % len(verbs)]
        note(verb)
        answer = ask(self.engine, self.project_id, job_id, verb)
        now = job_row(self.engine, job_id)
        expected = {"cancel": {"cancelled", "cancelling"}, "pause": {"paused", "pausing"}}
        assert answer in expected.get(verb, {"queued", "running"})
        if before.state in ("failed", "cancelled"):
            self.stories[job_id].starts_over = verb == "retry from start"
            assert now.crash_count == 0
        if turn.again:
            assert ask(self.engine, self.project_id, job_id, verb) == answer
            assert job_row(self.engine, job_id) == now

    def user_asks_for_what_is_not(self, turn: Turn) -> None:
        """Refused, or a repeat: either way nothing changes."""
        job_id = self.job(turn)
        before = job_row(self.engine, job_id)
        verb = list(VERBS)[turn.what % len(VERBS)]
        if verb.partition(" ")[0] not in possible(shown(State(before.state), Request(before.requested))):
            with suppress(StateConflict):
                ask(self.engine, self.project_id, job_id, verb)
            assert job_row(self.engine, job_id) == before

    def teardown(self) -> None:
        with self.engine.connect() as conn:
            for story in self.stories.values():
                story.check(conn)
        for trainer in self.running:
            end(self.engine, trainer.lease, "succeed")

    def job(self, turn: Turn) -> UUID:
        self.touched = list(self.stories)[turn.which % len(self.stories)]
        return self.touched

    def trainer(self, turn: Turn) -> Trainer:
        trainer = self.running[turn.which % len(self.running)]
        self.touched = trainer.lease.job_id
        return trainer

    def requested(self, trainer: Trainer) -> Request:
        return Request(job_row(self.engine, trainer.lease.job_id).requested)

    def advance(self, trainer: Trainer, turn: Turn) -> None:
        """Steps are flushed, and maybe saved; else progress is reported ahead of them, and an upload is begun."""
        story = self.stories[trainer.lease.job_id]
        trainer.fresh_from = None if turn.flushes else trainer.fresh_from
        for steps, saved, answer_lost in turn.flushes:
            first, last = trainer.step + 1, trainer.step + steps
            trainer.step, trainer.seq = last, trainer.seq + 1
            for _ in range(1 + answer_lost):
                self.flush(trainer, first, last, seq=trainer.seq)
            story.flushed(trainer.lease.attempt, first, last)
            if saved:
                save(self.engine, trainer.lease, last)
                story.saved[last] = trainer.lease.attempt
                continue
            with self.engine.begin() as conn:
                unfinished: dict[str, Any] = {"kind": "interval", "model_size": 1, "state_size": 1, "summary": {}}
                begin_checkpoint(conn, trainer.lease, step=last + 10, **unfinished)
                record_progress(conn, trainer.lease, phase="train", step=last + 1, summary={})

    def flush(self, trainer: Trainer, first: int, last: int, *, seq: int) -> None:
        with self.engine.begin() as conn:
            record_metrics(conn, trainer.lease, seq=seq, segment=segment(first, last))

    def end(self, trainer: Trainer, how: str, *, again: bool) -> str:
        state = end(self.engine, trainer.lease, how)
        if again:
            assert end(self.engine, trainer.lease, how) == state
        self.retire(trainer)
        return state

    def retire(self, trainer: Trainer) -> None:
        """Its job's back-off lasts as long as it takes: a life must not depend on how fast this machine is."""
        self.running.remove(trainer)
        self.stale.append(trainer)
        if job_row(self.engine, trainer.lease.job_id).crash_count > 1:
            stay_in_back_off(self.engine, trainer.lease.job_id)


def stay_in_back_off(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == job_id).values(not_before=after(3_600)))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whatever_happens_every_job_keeps_one_legal_line_of_history(engine: Engine, project_id: int) -> None:
    workers = [add_worker(engine) for _ in range(3)]
    run_state_machine_as_test(
        partial(Lifecycle, engine, project_id, workers),
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, print_blob=True),
    )
