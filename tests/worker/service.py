"""A database with jobs, as the api would make them, and questions about them; for tests of worker processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Engine, Row, select, text

from jobs import tables
from jobs.catalog import resolve
from jobs.database import cluster_id
from jobs.doorbell import Doorbell
from jobs.lifecycle.cancel import request_cancel, request_cancel_of_check
from jobs.lifecycle.pause import request_pause, resume
from jobs.lifecycle.retry import Start, retry
from jobs.lifecycle.submit import submit
from jobs.metrics import store
from jobs.notify import notify_request
from jobs.states import FINAL, ShownState
from traind.spec import JobSpec

T = TypeVar("T")
PATIENT = 60.0
"""Seconds after which something that should happen did not; generous, for a machine that is shared."""
POLL = 0.005
LONGEST_POLL = 0.05
"""Seconds from one look to the next: at first, and after a second."""

BRIEF = {
    "dataset": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [32]},
    "optimizer": {"name": "adam"},
    "training": {"steps": 60, "threads": 1},
    "checkpoints": {"keep_last": None},
}
LONG = BRIEF | {"training": {"steps": 1_000_000, "threads": 1, "log_every": 50, "checkpoint_every": 200}}
MEDIUM = BRIEF | {"training": {"steps": 2_500, "threads": 1, "log_every": 10, "checkpoint_every": 200}}
"""Five seconds or more, by the pace of lent workers: long enough to be interrupted, short enough to be waited for."""
MEDIUM_STEPS = list(range(10, 2_501, 10))
"""The steps of its points in one line of history, nothing doubled and nothing dropped."""

LASTING = BRIEF | {"training": {"steps": 5_000, "threads": 1, "log_every": 10, "checkpoint_every": 200}}
"""The same twice as long, for what must find it running more than once."""
LASTING_STEPS = list(range(10, 5_001, 10))
LASTING_CHECKPOINTS = list(range(200, 5_001, 200))


@dataclass(frozen=True)
class Service:
    """One installation: its database and the Redis its doorbell rings on."""

    database_url: str
    redis_url: str
    engine: Engine
    project_id: int

    def submit(self, document: dict[str, Any], *, queue: str = "default", ring: bool = True, **resources: Any) -> UUID:
        """A new job, and its wake."""
        spec = JobSpec.model_validate({"resources": {"queue": queue} | resources} | document)
        with self.engine.begin() as conn:
            job_id = submit(conn, project_id=self.project_id, spec=spec, resolved=resolve(spec)).job_id
            cluster = cluster_id(conn)
        if ring:
            Doorbell(self.redis_url, cluster).ring(queue)
        return job_id

    def cancel(self, job_id: UUID) -> None:
        self._ask(request_cancel, job_id)

    def cancel_check(self, check_id: UUID) -> None:
        self._ask(request_cancel_of_check, check_id)

    def pause(self, job_id: UUID) -> None:
        self._ask(request_pause, job_id)

    def resume(self, job_id: UUID) -> None:
        self._ask(resume, job_id)

    def retry(self, job_id: UUID, start: Start = "checkpoint") -> None:
        self._ask(partial(retry, start=start), job_id)

    def _ask(self, verb: Callable[..., ShownState], job_id: UUID) -> None:
        """As the api does: a job that runs has its worker told, one that waits has the doorbell rung."""
        with self.engine.begin() as conn:
            state = verb(conn, project_id=self.project_id, job_id=job_id)
            cluster = cluster_id(conn)
        if state is ShownState.QUEUED:
            Doorbell(self.redis_url, cluster).ring(self.job(job_id).queue)
        else:
            notify_request(self.engine, cluster, job_id)

    def job(self, job_id: UUID) -> Row[Any]:
        return self.rows(select(tables.job).where(tables.job.c.id == job_id))[0]

    def attempts(self, job_id: UUID) -> list[Row[Any]]:
        query = select(tables.attempt).where(tables.attempt.c.job_id == job_id)
        return self.rows(query.order_by(tables.attempt.c.number))

    def events(self, job_id: UUID) -> list[Row[Any]]:
        query = select(tables.job_event).where(tables.job_event.c.job_id == job_id)
        return self.rows(query.order_by(tables.job_event.c.id))

    def segments(self, job_id: UUID) -> list[Row[Any]]:
        query = select(tables.metric_segment).where(tables.metric_segment.c.job_id == job_id)
        return self.rows(query.order_by(tables.metric_segment.c.attempt, tables.metric_segment.c.seq))

    def steps(self, job_id: UUID, key: str = "train/loss") -> list[int]:
        """The steps of the job's visible points."""
        with self.engine.connect() as conn:
            return [int(step) for step in store.read(conn, job_id, [key])[key].steps]

    def rows(self, query: Any, **parameters: Any) -> list[Row[Any]]:
        with self.engine.begin() as conn:
            return list(conn.execute(text(query) if isinstance(query, str) else query, parameters).all())

    def checkpoints(self, job_id: UUID) -> list[Row[Any]]:
        """Complete ones, with the hashes of their two files, in the order in which they were begun."""
        query = """
            SELECT c.step, c.kind, c.attempt, encode(m.sha256, 'hex') AS model, encode(s.sha256, 'hex') AS state
            FROM checkpoint c JOIN blob m ON m.id = model_blob_id JOIN blob s ON s.id = state_blob_id
            WHERE c.job_id = :job AND c.complete ORDER BY c.id"""
        return self.rows(query, job=job_id)

    def wait(self, job_id: UUID, condition: Callable[[Row[Any]], object], *, seconds: float = PATIENT) -> Row[Any]:
        """The job's row as soon as the condition holds for it."""
        return until(lambda: self.job(job_id), condition, seconds=seconds)

    def wait_final(self, job_id: UUID, *, seconds: float = PATIENT) -> Row[Any]:
        return self.wait(job_id, lambda row: row.state in FINAL, seconds=seconds)

    def wait_step(self, job_id: UUID, step: int) -> Row[Any]:
        """The job runs and has reported this step."""
        return self.wait(job_id, lambda row: row.state == "running" and row.observed_step >= step)

    def wait_saved(self, job_id: UUID) -> Row[Any]:
        """The job runs and has saved a checkpoint."""
        return self.wait(job_id, lambda row: row.state == "running" and row.saved_step)


def written(service: Service, job_id: UUID) -> list[Any]:
    """All that the first attempt left: its own row, its points (compacted meanwhile or not) and its checkpoints."""
    with service.engine.connect() as conn:
        series = store.read(conn, job_id, attempts="all")
    points = [
        (key, point)
        for key, one in sorted(series.items())
        for point in zip(*(array.tolist() for array in (one.attempts, one.steps, one.times, one.values)), strict=True)
        if point[0] == 1
    ]
    checkpoints = service.rows("SELECT * FROM checkpoint WHERE job_id = :job AND attempt = 1 ORDER BY id", job=job_id)
    return [service.attempts(job_id)[0], *points, *checkpoints]


def job_of_other_worker(service: Service, document: dict[str, Any]) -> tuple[UUID, UUID]:
    """A job with a checkpoint that another worker of `rescue` runs; and the job that keeps the shared one busy."""
    blocker = service.submit(LONG)
    service.wait(blocker, lambda job: job.state == "running")
    job_id = service.submit(document, queue="rescue")
    service.wait_saved(job_id)
    return job_id, blocker


def until(look: Callable[[], T], condition: Callable[[T], object], *, seconds: float = PATIENT) -> T:
    """What `look` shows as soon as the condition holds for it; AssertionError if it does not in time."""
    began = time.monotonic()
    while True:
        seen = look()
        if condition(seen):
            return seen
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:g} s; last seen: {seen}"
        time.sleep(min(max(POLL, waited * LONGEST_POLL), LONGEST_POLL))
