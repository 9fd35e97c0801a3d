"""The upload thread of one attempt: checkpoint files go to the database in chunks while the training goes on.

Each chunk is a short transaction that does not touch the job's row. The files belong to this thread and are deleted
once the checkpoint is complete, or if it is skipped for want of room (`worker.admission`). The pipe thread hands
checkpoints over after it has written the metrics before them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from jobs.blobs import vacuum
from jobs.garbage import VACUUM_BYTES, remove
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import begin_checkpoint, complete_checkpoint, note_no_room, put_chunk
from jobs.tables import CHUNK_BYTES
from worker.admission import Admission, NoRoom
from worker.host import Host
from worker.training.messages import Checkpoint
from worker.verdict import Crash, Decided, Verdict, error_document
from worker.writes import write_through

WAITING = 2
"""Checkpoints that may wait; then the trainer does. Their files fill the scratch folder."""

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Uploads:
    """A thread from entering the context to leaving it. `origin` is the step of the checkpoint it began from."""

    def __init__(self, host: Host, lease: Lease, verdict: Verdict, *, origin: int | None) -> None:
        self._engine: Engine = host.engine
        self._lease = lease
        self._verdict = verdict
        self._admission = Admission(
            host.storage,
            wait_seconds=host.settings.storage_wait_seconds,
            tell=self._tell_no_room,
            pause=self._pause,
        )
        self._stored = [] if origin is None else [origin]
        self._skipped: set[int] = set()
        self._queue: deque[Checkpoint] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._removed_bytes = 0
        self._thread = threading.Thread(target=verdict.guard, args=(self._run,), name="upload", daemon=True)
        self.busy_since: float | None = None
        """Since when it is at one chunk (monotonic); None where it has nothing to do."""

    def __enter__(self) -> Uploads:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Only once the verdict is decided: an upload under way is given up."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def put(self, checkpoint: Checkpoint) -> None:
        """Hand over a checkpoint's files; waits where too many wait. Raises Decided."""
        with self._changed:
            self._wait_while(lambda: len(self._queue) >= WAITING)
            self._queue.append(checkpoint)
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until all is uploaded. Raises Decided."""
        with self._changed:
            self._wait_while(lambda: bool(self._queue))

    def stored(self, step: int | None) -> int | None:
        """Step of the newest checkpoint up to `step`, where the trainer took one; that one may have been skipped."""
        if step not in self._skipped:
            return step
        return max((each for each in self._stored if each < step), default=None)

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            self._verdict.check()
            self._changed.wait()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._stopping:
                        return
                    self._changed.wait()
            self._upload(self._queue[0])
            self.busy_since = None
            with self._changed:
                self._queue.popleft()
                self._changed.notify_all()

    def _upload(self, checkpoint: Checkpoint) -> None:
        files = Path(checkpoint.model_path), Path(checkpoint.state_path)
        self.busy_since = time.monotonic()
        try:
            if self._admission.admit(checkpoint):
                self._store(checkpoint, *files)
                self._stored.append(checkpoint.step)
            else:
                self._skipped.add(checkpoint.step)
                for path in files:
                    path.unlink()
        except NoRoom as error:
            self._verdict.decide(Crash(error_document("storage-full", str(error))))
            raise Decided from error

    def _store(self, checkpoint: Checkpoint, model: Path, state: Path) -> None:
        ref = self._write(
            lambda conn: begin_checkpoint(
                conn,
                self._lease,
                step=checkpoint.step,
                kind=checkpoint.kind,
                model_size=checkpoint.model_size,
                state_size=checkpoint.state_size,
                summary=checkpoint.summary,
            )
        )
        files = ((ref.model_blob_id, model), (ref.state_blob_id, state))
        for blob_id, path in files:
            self._upload_file(blob_id, path)
        surplus = self._write(
            lambda conn: complete_checkpoint(
                conn,
                self._lease,
                checkpoint_id=ref.id,
                model_sha256=bytes.fromhex(checkpoint.model_sha256),
                state_sha256=bytes.fromhex(checkpoint.state_sha256),
                needed=self.stored(checkpoint.needed),
            )
        )
        for _, path in files:
            path.unlink()
        self._remove(surplus)

    def _remove(self, blob_ids: list[int]) -> None:
        """Remove what is kept no longer before the next checkpoint comes; after an outage housekeeping does."""
        try:
            for blob_id in blob_ids:
                self._verdict.check()
                self.busy_since = time.monotonic()
                self._removed_bytes += remove(self._engine, [blob_id]).n_bytes
            if self._removed_bytes >= VACUUM_BYTES:
                vacuum(self._engine, blob_ids)
                self._removed_bytes = 0
        except DBAPIError as error:
            log.warning("surplus checkpoints are left to housekeeping", error=str(error.orig))

    def _upload_file(self, blob_id: int, path: Path) -> None:
        for seq, data in enumerate(_chunks(path)):
            self._write(partial(put_chunk, lease=self._lease, blob_id=blob_id, seq=seq, data=data))

    def _tell_no_room(self, checkpoint: Checkpoint, reason: str) -> None:
        self._write(partial(note_no_room, lease=self._lease, step=checkpoint.step, kind=checkpoint.kind, reason=reason))

    def _pause(self, seconds: float) -> None:
        self.busy_since = time.monotonic()
        self._verdict.pause(seconds)

    def _write(self, write: Callable[[Connection], T]) -> T:
        self._verdict.check()
        self.busy_since = time.monotonic()
        return write_through(self._engine, write, self._verdict.pause)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield data
