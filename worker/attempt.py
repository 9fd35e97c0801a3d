"""One attempt: from a claim to an ending that is written, with heartbeat, trainer, pipe and uploads in between.

Runs in the slot's thread. Whoever sees first how it ends decides the verdict, which kills the trainer at once; then
the threads end, and the ending is written under the lease that the heartbeat still holds. A pause or a drain is no
ending yet, but a wish (`worker.wishes`).
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial

import structlog
from sqlalchemy import Connection

from jobs.errors import Fenced
from jobs.lifecycle.claim import Claim
from jobs.lifecycle.crash import MACHINE_FAULTS
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import crash, finish, requeue, set_aside
from jobs.states import State
from worker import output
from worker.checking import CannotCheck, inputs
from worker.heartbeat import Heartbeat, allowance
from worker.host import Host
from worker.judgement import ask_seconds, gone, over_time, stalled
from worker.pipe import Pipe
from worker.process import StartFailed
from worker.restore import CheckpointDamaged, restore
from worker.trainer import Killed, Trainer
from worker.training.messages import Audit, CheckpointFiles, TrainerJob, Verify
from worker.uploads import Uploads
from worker.verdict import Crash, Decided, Ending, ErrorDocument, Finish, Lost, Requeue, Verdict, error_document
from worker.wishes import Wishes
from worker.writes import write_through

TICK_SECONDS = 1.0
LAST_WORDS_SECONDS = 5.0
"""What a draining worker has for writing how the attempt ended, where its time is over; within any stop grace."""

log = structlog.get_logger(__name__)


class Attempt:
    """`run` once; `drain` may be called from any thread before and meanwhile. `claimed_at` (boottime) is before the
    claim.
    """

    def __init__(self, host: Host, claim: Claim, *, claimed_at: float) -> None:
        self._host = host
        self._claim = claim
        self._folder = host.scratch.folder / f"{claim.lease.job_id}-{claim.lease.attempt}"
        self._log_path = self._folder / "trainer.log"
        self._trainer = Trainer(allowance(host, claimed_at))
        self._started = self._pulse = time.monotonic()
        self._log = log.bind(job=str(claim.lease.job_id), attempt=claim.lease.attempt)
        self._verdict = Verdict(self._trainer.kill)
        self._wishes = Wishes(host.settings, self._trainer, self._verdict)

    def run(self) -> State | None:
        """Train, and write how it ended; the job's state then, or None where that was not ours to say any more."""
        self._log.info("attempt begins", from_step=self._claim.from_step)
        heartbeat = Heartbeat(
            self._host,
            self._claim.lease,
            trainer=self._trainer,
            verdict=self._verdict,
            wishes=self._wishes,
            alive=self.alive,
        )
        try:
            with heartbeat:
                self._verdict.guard(partial(self._train, heartbeat))
                return self._write_ending()
        finally:
            self._trainer.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def drain(self) -> None:
        """The worker stops: end at the next safe point."""
        self._wishes.drain()

    @property
    def fault(self) -> ErrorDocument | None:
        """What it ended by, if that was a fault of this machine; the database's room is not."""
        ending = self._verdict.ending
        if not isinstance(ending, Crash) or ending.error["code"] not in MACHINE_FAULTS - {"storage-full"}:
            return None
        return ending.error

    def alive(self) -> bool:
        """Whether it is still being watched over."""
        return time.monotonic() - self._pulse < self._host.settings.stall_timeout_seconds

    def _pause(self, seconds: float) -> None:
        """Wait, watched over. Raises Decided as soon as the verdict is."""
        self._pulse = time.monotonic()
        self._verdict.pause(seconds)

    def _train(self, heartbeat: Heartbeat) -> None:
        while not heartbeat.held.is_set():
            heartbeat.held.wait(TICK_SECONDS / 10)
            self._pause(0)
        self._folder.mkdir(mode=0o700)
        files = check = None
        try:
            if self._claim.check is not None:
                files, check = inputs(self._host.engine, self._claim.check, self._folder, self._pause)
            else:
                files = self._restore()
            link = self._trainer.start(self._job(files, check), self._log_path)
        except Killed:
            return
        except CannotCheck as error:
            self._verdict.decide(Finish(State.FAILED, summary={}, error=error.document))
            return
        except StartFailed as error:
            self._verdict.decide(Crash(error_document("trainer-not-started", str(error))))
            return
        origin = self._claim.checkpoint
        uploads = Uploads(self._host, self._claim.lease, self._verdict, origin=None if origin is None else origin.step)
        pipe = Pipe(
            link,
            self._host.engine,
            self._claim.lease,
            uploads=uploads,
            verdict=self._verdict,
            on_ready=self._wishes.set_ready,
            why_gone=partial(gone, self._trainer, self._log_path),
            origin=origin,
            checking=self._claim.check is not None,
            limit=self._limit,
        )
        with pipe, uploads:
            self._verdict.guard(partial(self._supervise, pipe, uploads))

    def _restore(self) -> CheckpointFiles | None:
        """The checkpoint to start from; where it is damaged the one before it. None for the start."""
        while (checkpoint := self._claim.checkpoint) is not None:
            try:
                return restore(self._host.engine, checkpoint, self._folder, self._pause)
            except CheckpointDamaged as error:
                aside = partial(set_aside, lease=self._claim.lease, checkpoint_id=checkpoint.id, damage=str(error))
            point = write_through(self._host.engine, aside, self._pause)
            self._claim = replace(self._claim, from_step=point.step, checkpoint=point.checkpoint)
            self._log.warning("a damaged checkpoint is set aside", checkpoint=checkpoint.id, from_step=point.step)
        return None

    def _job(self, files: CheckpointFiles | None, check: Verify | Audit | None) -> str:
        job = TrainerJob(
            spec=self._claim.spec,
            resolved=self._claim.resolved,
            scratch_dir=self._folder,
            checkpoint=files,
            settings=self._host.data.settings,
            check=check,
        )
        return job.model_dump_json()

    def _supervise(self, pipe: Pipe, uploads: Uploads) -> None:
        while not self._verdict.wait(self._tick(pipe)):
            self._pulse = time.monotonic()
            output.bound(self._log_path)
            ending = self._over_time(pipe) or self._wishes.overdue() or self._stalled(pipe, uploads)
            if ending is not None:
                self._verdict.decide(ending)

    @property
    def _limit(self) -> int | None:
        """A check replays with the spec of its job, whose limit is not for it."""
        return None if self._claim.check else self._claim.spec.resources.max_runtime_seconds

    def _tick(self, pipe: Pipe) -> float:
        """Until the next look, which is in time for the last checkpoint before the limit."""
        if self._limit is None:
            return TICK_SECONDS
        left = self._started + ask_seconds(self._limit, pipe.seconds_per_step) - time.monotonic()
        return min(TICK_SECONDS, left) if left > 0 else TICK_SECONDS / 10

    def _over_time(self, pipe: Pipe) -> Ending | None:
        """Asks for a checkpoint before the limit. An upload of what was saved in time may take longer."""
        seconds = self._pulse - self._started
        if self._limit is None or pipe.stopped:
            return None
        if seconds >= ask_seconds(self._limit, pipe.seconds_per_step):
            self._wishes.limit()
        return over_time(seconds, self._limit)

    def _stalled(self, pipe: Pipe, uploads: Uploads) -> Ending | None:
        return stalled(
            self._trainer,
            listening_since=pipe.listening_since,
            uploading_since=uploads.busy_since,
            timeout_seconds=self._host.settings.stall_timeout_seconds,
        )

    def _write_ending(self) -> State | None:
        ending, printed = self._verdict.ending, output.read(self._log_path)
        give_up_at = self._give_up_at()

        def wait(seconds: float) -> None:
            self._pulse = time.monotonic()
            if self._pulse > give_up_at:
                raise Decided
            time.sleep(seconds)

        def write(conn: Connection) -> State:
            return _end(conn, self._claim.lease, ending, printed)

        try:
            state = None if isinstance(ending, Lost) else write_through(self._host.engine, write, wait)
        except (Fenced, Decided):
            state = None
        self._log.info("attempt ended", ending=ending.__class__.__name__, state=state, **_brief(ending))
        return state

    def _give_up_at(self) -> float:
        """Until when to try to write the ending: the lease is ours, or a draining worker is killed soon."""
        now, drain_until = time.monotonic(), self._wishes.drain_until
        if drain_until is not None:
            return max(drain_until, now + LAST_WORDS_SECONDS)
        return now + 2 * self._host.settings.lease_seconds


def _end(conn: Connection, lease: Lease, ending: Ending | None, printed: str) -> State:
    match ending:
        case Finish():
            return finish(
                conn,
                lease,
                state=ending.state,
                error=ending.error,
                summary=ending.summary,
                log=printed,
                result=ending.result,
            )
        case Crash():
            return crash(conn, lease, error=ending.error, log=printed, damaged=ending.damaged_checkpoint)
        case Requeue():
            return requeue(conn, lease, reason=ending.reason, log=printed)
    raise ValueError(f"{ending} cannot be written")


def _brief(ending: Ending | None) -> dict[str, str]:
    if isinstance(ending, Requeue):
        return {"reason": ending.reason}
    error = ending.error if isinstance(ending, Finish | Crash) else None
    return {name: error[name] for name in ("code", "message")} if error else {}
