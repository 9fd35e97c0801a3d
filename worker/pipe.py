"""The pipe thread of one attempt: reads the trainer's messages and writes what they say, in their order.

Metrics go out as they come, each flush with its number, so that one repeated after a lost answer is not doubled.
Progress travels with them, or alone where none come. A checkpoint is handed to the upload thread only after the
metrics before it are written. While the database is away the trainer waits in its pipe: nothing is lost, nothing
overtakes. The trainer's last message, or the end of its pipe without one, decides the attempt's verdict.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection as Link
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import CheckpointRef, record_fingerprint, record_metrics, record_progress
from jobs.metrics.codec import Segment
from jobs.states import State
from worker.checking import damaged_start
from worker.judgement import limit_reached
from worker.training.errors import CheckpointCorrupt
from worker.training.messages import (
    Checked,
    Checkpoint,
    Failed,
    Finished,
    Message,
    Metrics,
    Phase,
    Progress,
    Ready,
    Stopped,
    decode,
)
from worker.uploads import Uploads
from worker.verdict import Crash, Ending, Finish, Requeue, Verdict, error_document
from worker.wishes import REASONS
from worker.writes import write_through

PROGRESS_SECONDS = 0.5
"""Progress is written alone where no metrics took it along for this long."""

T = TypeVar("T")


class Pipe:
    """A thread from entering the context to leaving it, which must come after the verdict and the trainer's end.

    `on_ready` is called when the trainer has loaded everything. `why_gone` says how a trainer ended that did not say
    so itself. Where the trainer finds `origin`, the checkpoint it trains on from, damaged, the next attempt starts from
    the one before; a check cannot, and fails. `limit` is the attempt's max_runtime_seconds.
    """

    def __init__(
        self,
        link: Link,
        engine: Engine,
        lease: Lease,
        *,
        uploads: Uploads,
        verdict: Verdict,
        on_ready: Callable[[], None],
        why_gone: Callable[[], Ending],
        origin: CheckpointRef | None,
        checking: bool,
        limit: int | None = None,
    ) -> None:
        self._link = link
        self._engine = engine
        self._lease = lease
        self._uploads = uploads
        self._verdict = verdict
        self._on_ready = on_ready
        self._why_gone = why_gone
        self._origin = origin
        self._checking = checking
        self._limit = limit
        self._seq = 0
        self._phase = "load"
        self._step = 0
        self._summary: dict[str, Any] = {}
        self._unwritten_since: float | None = None
        self._thread = threading.Thread(target=verdict.guard, args=(self._run,), name="pipe", daemon=True)
        self.listening_since: float | None = None
        """Since when it waits for a message (monotonic); None while it is at work on one."""

        self.seconds_per_step = 0.0
        self.stopped = False
        """Whether the trainer has stopped, at its end or as asked: what is left is the upload of its checkpoint."""

    def __enter__(self) -> Pipe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        ending: Ending | None = None
        while ending is None:
            try:
                message = self._receive()
            except (EOFError, OSError):
                ending = self._why_gone()
            else:
                ending = self._handle(message)
        self._uploads.finish()
        self._verdict.decide(self._as_stored(ending))

    def _receive(self) -> Message:
        """The next message; progress that has waited long enough is written meanwhile."""
        while True:
            left = None
            if self._unwritten_since is not None:
                left = self._unwritten_since + PROGRESS_SECONDS - time.monotonic()
            if left is not None and left <= 0:
                self._write_progress()
                continue
            self.listening_since = time.monotonic()
            arrived = self._link.poll(left)
            self.listening_since = None
            if arrived:
                return decode(self._link.recv_bytes())

    def _handle(self, message: Message) -> Ending | None:
        """Do as the message says; the ending, where it is the last one."""
        match message:
            case Phase():
                self._note(message.name, self._step, {})
            case Ready():
                self._on_ready()
                found = {**message.fingerprint, "differences": message.differences}
                self._write(lambda conn: record_fingerprint(conn, self._lease, found))
                self._note(self._phase, message.step, {})
            case Progress():
                self._note(message.phase, message.step, {"rate": message.rate, "eta_seconds": message.eta_seconds})
                self.seconds_per_step = 1 / message.rate if message.rate else self.seconds_per_step
            case Metrics():
                self._write_metrics(message)
            case Checkpoint():
                self._uploads.put(message)
            case Finished():
                self.stopped = True
                return Finish(State(message.state), message.summary, message.error)
            case Checked():
                self._note(self._phase, message.step, {})
                self._write_progress()
                return Finish(State.SUCCEEDED, summary={}, result=message.result)
            case Stopped():
                self.stopped = True
                if message.kind == "limit":
                    return limit_reached(self._limit, message.step)
                return Requeue(REASONS[message.kind])
            case Failed():
                return self._failure(message)
            case _:
                raise ValueError(f"a trainer does not send {message}")
        return None

    def _note(self, phase: str, step: int, summary: dict[str, Any]) -> None:
        self._phase, self._step = phase, max(step, self._step)
        self._summary |= summary
        if self._unwritten_since is None:
            self._unwritten_since = time.monotonic()

    def _write_progress(self) -> None:
        self._write(partial(record_progress, lease=self._lease, **self._take_progress()))

    def _write_metrics(self, message: Metrics) -> None:
        columns = {key: (c["steps"], c["times"], c["values"]) for key, c in message.columns.items()}
        segment = Segment(message.step0, message.step1, columns)
        self._note(self._phase, message.step1, message.summary)
        self._seq += 1
        progress = self._take_progress()
        self._write(partial(record_metrics, lease=self._lease, seq=self._seq, segment=segment, **progress))

    def _take_progress(self) -> dict[str, Any]:
        taken = {"phase": self._phase, "step": self._step, "summary": self._summary}
        self._summary, self._unwritten_since = {}, None
        return taken

    def _write(self, write: Callable[[Connection], T]) -> T:
        self._verdict.check()
        return write_through(self._engine, write, self._verdict.pause)

    def _as_stored(self, ending: Ending) -> Ending:
        """A divergence names the last good checkpoint; the trainer does not know which of them were skipped."""
        if not isinstance(ending, Finish) or ending.error is None or "last_checkpoint_step" not in ending.error:
            return ending
        step = self._uploads.stored(ending.error["last_checkpoint_step"])
        return replace(ending, error=ending.error | {"last_checkpoint_step": step})

    def _failure(self, message: Failed) -> Ending:
        text, retryable, damaged = message.message, message.retryable, None
        if self._origin is not None and message.code == CheckpointCorrupt.code:
            if self._checking:
                text = damaged_start(self._origin, text)
            else:
                damaged, retryable = self._origin.id, True
        more = {"traceback": message.traceback} if message.traceback else {}
        error = error_document(message.code, text, retryable=retryable, **more)
        return Crash(error, damaged) if retryable else Finish(State.FAILED, summary={}, error=error)
