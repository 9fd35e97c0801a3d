"""The lifecycle as a state machine on a real Postgres: several workers, what befalls them, and users who interfere.

Workers claim (woken once, twice or not at all), train, flush, save, drain, crash, die and wake up late; users cancel,
pause, resume and retry at any time. After each rule the job it touched is compared with `tests.jobs.history`.
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
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine

from jobs.errors import Fenced, StateConflict
from jobs.lifecycle.claim import claim
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import begin_checkpoint, heartbeat, record_metrics, record_progress
from jobs.states import Request, ShownState
from tests.jobs.history import Story
from tests.jobs.scenario import add_job, add_worker, expire, job_row, now_due, segment
from tests.jobs.verbs import ENDS, VERBS, ask, end, reap_now, save

EXAMPLES = int(os.environ.get("TRAIND_TEST_MACHINE_EXAMPLES", "25"))
"""How many lives the machine tries; some seconds each hundred rules."""
STEPS = 50
MAX_JOBS = 2
MAX_ATTEMPTS = 2
PICK = st.integers(0, 1_000)


@dataclass
class Trainer:
    """What runs under a lease: where it is, and its next flush."""

    lease: Lease
    step: int
    seq: int = 0


class Lifecycle(RuleBasedStateMachine):
    def __init__(self, engine: Engine, project_id: int, workers: list[UUID]) -> None:
        super().__init__()
        self.engine, self.project_id, self.workers = engine, project_id, workers
        self.queue = f"q-{uuid4().hex}"
        self.stories: dict[UUID, Story] = {}
        self.running: list[Trainer] = []
        self.stale: list[Trainer] = []

    @initialize()
    def first_job(self) -> None:
        self.submit()

    @precondition(lambda self: len(self.stories) < MAX_JOBS)
    @rule()
    def submit(self) -> None:
        job_id = add_job(self.engine, self.project_id, resources={"queue": self.queue, "max_attempts": MAX_ATTEMPTS})
        self.stories[job_id] = Story(job_id, MAX_ATTEMPTS)
        self.check(job_id)

    @rule(worker=PICK, wakes=st.integers(1, 2))
    def wake(self, worker: int, wakes: int) -> None:
        """A worker hears the doorbell, maybe twice: it claims until nothing is due."""
        for _ in range(wakes):
            with self.engine.begin() as conn:
                claimed = claim(
                    conn,
                    worker_id=self.workers[worker % len(self.workers)],
                    queues=[self.queue],
                    device="cpu",
                    threads=1,
                    lease_seconds=3_600,
                )
            if claimed is None:
                return
            self.story(claimed.lease).started(claimed.from_step)
            self.running.append(Trainer(claimed.lease, claimed.from_step))
            self.check(claimed.lease.job_id)

    @precondition(lambda self: self.running)
    @rule(which=PICK, steps=st.integers(1, 3), answers_lost=st.booleans())
    def train(self, which: int, steps: int, answers_lost: bool) -> None:
        trainer = self.pick(self.running, which)
        first, last = trainer.step + 1, trainer.step + steps
        trainer.seq += 1
        write = partial(record_metrics, seq=trainer.seq, segment=segment(first, last), phase="train")
        for _ in range(1 + answers_lost):
            self.holding(trainer, write)
        trainer.step = last
        self.story(trainer.lease).flushed(trainer.lease.attempt, first, last)
        self.check(trainer.lease.job_id)

    @precondition(lambda self: self.running)
    @rule(which=PICK, complete=st.booleans())
    def checkpoint(self, which: int, complete: bool) -> None:
        trainer = self.pick(self.running, which)
        if complete:
            self.save(trainer)
        else:
            size = {"model_size": 1, "state_size": 1}
            self.holding(trainer, partial(begin_checkpoint, step=trainer.step + 1, kind="interval", summary={}, **size))
        self.check(trainer.lease.job_id)

    @precondition(lambda self: self.running)
    @rule(which=PICK, saved=st.booleans(), answer_lost=st.booleans())
    def give_up(self, which: int, saved: bool, answer_lost: bool) -> None:
        """The worker drains, or heeds a pause; with a checkpoint where there was time for it."""
        trainer = self.pick(self.running, which)
        request = Request(job_row(self.engine, trainer.lease.job_id).requested)
        if saved and request is not Request.CANCEL:
            self.save(trainer)
        expected = {Request.NONE: "queued", Request.PAUSE: "paused", Request.CANCEL: "cancelled"}[request]
        assert self.end(trainer, "give up", answer_lost) == expected

    @precondition(lambda self: self.running)
    @rule(which=PICK, how=st.sampled_from(["succeed", "fail", "crash", "crash"]), answer_lost=st.booleans())
    def attempt_ends(self, which: int, how: str, answer_lost: bool) -> None:
        trainer = self.pick(self.running, which)
        cancelled = job_row(self.engine, trainer.lease.job_id).requested == Request.CANCEL
        assert (self.end(trainer, how, answer_lost) == "cancelled") == cancelled

    @precondition(lambda self: self.running)
    @rule(which=PICK, back_in_time=st.booleans())
    def worker_is_lost(self, which: int, back_in_time: bool) -> None:
        """Its lease runs out; it may renew it late, before anybody took the attempt."""
        trainer = self.pick(self.running, which)
        expire(self.engine, trainer.lease.job_id)
        if back_in_time:
            with self.engine.begin() as conn:
                heartbeat(conn, trainer.lease, lease_seconds=3_600)
            assert reap_now(self.engine) == []
        else:
            assert [one.job_id for one in reap_now(self.engine)] == [trainer.lease.job_id]
            self.retire(trainer)
        self.check(trainer.lease.job_id)

    @precondition(lambda self: self.stale)
    @rule(which=PICK, what=st.sampled_from(["train", "save", "beat", *ENDS]))
    def worker_wakes_up_late(self, which: int, what: str) -> None:
        """What it still wants to write is dropped. (Only how its own attempt ended may be said again.)"""
        trainer = self.pick(self.stale, which)
        before = job_row(self.engine, trainer.lease.job_id)
        with suppress(Fenced):
            self.write_late(trainer, what)
            assert what in ENDS
        assert job_row(self.engine, trainer.lease.job_id) == before
        self.check(trainer.lease.job_id)

    def write_late(self, trainer: Trainer, what: str) -> None:
        step = trainer.step + 1
        if what in ENDS:
            end(self.engine, trainer.lease, what)
        elif what == "save":
            save(self.engine, trainer.lease, step)
        elif what == "beat":
            self.holding(trainer, partial(heartbeat, lease_seconds=3_600))
        else:
            self.holding(trainer, partial(record_metrics, seq=trainer.seq + 1, segment=segment(step, step)))

    @precondition(lambda self: self.running)
    @rule(which=PICK, ahead=st.integers(0, 2))
    def report(self, which: int, ahead: int) -> None:
        """Progress beyond the last flush, and a heartbeat that tells what is asked."""
        trainer = self.pick(self.running, which)
        self.holding(trainer, partial(record_progress, phase="train", step=trainer.step + ahead, summary={}))
        with self.engine.begin() as conn:
            request = heartbeat(conn, trainer.lease, lease_seconds=3_600)
        assert request == job_row(self.engine, trainer.lease.job_id).requested
        self.check(trainer.lease.job_id)

    @rule(which=PICK, verb=st.sampled_from(sorted(VERBS)), repeated=st.booleans())
    def user_asks(self, which: int, verb: str, repeated: bool) -> None:
        job_id = list(self.stories)[which % len(self.stories)]
        before = job_row(self.engine, job_id)
        try:
            answer = ask(self.engine, self.project_id, job_id, verb)
        except StateConflict:
            assert job_row(self.engine, job_id) == before
            return
        self.obeyed(job_id, verb, before.state, answer)
        if repeated:
            obeyed = job_row(self.engine, job_id)
            assert ask(self.engine, self.project_id, job_id, verb) == answer
            assert job_row(self.engine, job_id) == obeyed
        self.check(job_id)

    def obeyed(self, job_id: UUID, verb: str, before: str, answer: ShownState) -> None:
        now = job_row(self.engine, job_id)
        assert answer in {
            "cancel": {"cancelled", "cancelling"},
            "pause": {"paused", "pausing"},
        }.get(verb, {"queued", "running"})
        if verb.startswith("retry") and before in ("failed", "cancelled"):
            self.stories[job_id].starts_over = verb == "retry from start"
            assert now.crash_count == 0

    @rule(which=PICK)
    def back_off_passes(self, which: int) -> None:
        now_due(self.engine, list(self.stories)[which % len(self.stories)])

    def teardown(self) -> None:
        for job_id in self.stories:
            self.check(job_id)
        for trainer in self.running:
            end(self.engine, trainer.lease, "succeed")

    def check(self, job_id: UUID) -> None:
        with self.engine.connect() as conn:
            self.stories[job_id].check(conn)

    def story(self, lease: Lease) -> Story:
        return self.stories[lease.job_id]

    def pick(self, trainers: list[Trainer], which: int) -> Trainer:
        return trainers[which % len(trainers)]

    def holding(self, trainer: Trainer, write: Callable[..., Any]) -> None:
        with self.engine.begin() as conn:
            write(conn, trainer.lease)

    def save(self, trainer: Trainer) -> None:
        """At the step it is at, once; the start needs no checkpoint."""
        story = self.story(trainer.lease)
        if trainer.step > max(story.saved, default=0):
            save(self.engine, trainer.lease, trainer.step)
            story.saved[trainer.step] = trainer.lease.attempt

    def end(self, trainer: Trainer, how: str, answer_lost: bool) -> str:
        state = end(self.engine, trainer.lease, how)
        if answer_lost:
            assert end(self.engine, trainer.lease, how) == state
        self.retire(trainer)
        self.check(trainer.lease.job_id)
        return state

    def retire(self, trainer: Trainer) -> None:
        self.running.remove(trainer)
        self.stale.append(trainer)


@pytest.mark.timeout(300)
def test_whatever_happens_every_job_keeps_one_legal_line_of_history(engine: Engine, project_id: int) -> None:
    workers = [add_worker(engine) for _ in range(3)]
    run_state_machine_as_test(
        partial(Lifecycle, engine, project_id, workers),
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, print_blob=True),
    )
