"""Jobs brought to a state the way they get there: by the lifecycle itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, func, select, text, update

from jobs.ids import uuid7
from jobs.lifecycle.checkpoints import CheckpointRef
from jobs.lifecycle.claim import Claim, claim
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.submit import submit
from jobs.lifecycle.work import begin_checkpoint, complete_checkpoint, put_chunk
from jobs.lifecycle.workers import register_worker
from jobs.metrics.codec import Segment
from jobs.tables import attempt, job, job_event, metadata
from traind.spec import JobSpec, Resolved

LEASE_SECONDS = 60.0
RESOLVED = Resolved(
    dataset_sha256="ab" * 32,
    input_shape=(64,),
    n_outputs=10,
    loss="cross_entropy",
    n_train=1_437,
    n_validation=360,
    n_parameters=650,
    batch_size=32,
    steps_per_epoch=45,
    total_steps=450,
    eval_every=45,
)
ERROR = {"code": "trainer-crashed", "message": "the trainer died of signal 11", "retryable": True}
DAMAGE = {"code": "checkpoint-corrupt", "message": "the CRC-32 of its tensors is another", "retryable": True}


def spec(**parts: Any) -> JobSpec:
    small = {"dataset": {"name": "digits"}, "model": {"name": "linear"}, "optimizer": {"name": "sgd", "lr": 0.1}}
    return JobSpec.model_validate(small | parts)


def add_job(engine: Engine, project_id: int, **parts: Any) -> UUID:
    with engine.begin() as conn:
        return submit(conn, project_id=project_id, spec=spec(**parts), resolved=RESOLVED).job_id


def add_worker(engine: Engine, device: str = "cpu") -> UUID:
    worker_id = uuid7()
    with engine.begin() as conn:
        register_worker(conn, worker_id=worker_id, name="w", device=device, queues=["default"], versions={})  # type: ignore[arg-type]
    return worker_id


def start(engine: Engine, worker_id: UUID | None = None, **wishes: Any) -> Claim:
    """Claim the best due job; there must be one."""
    known = {"queues": ["default"], "device": "cpu", "threads": 2, "lease_seconds": LEASE_SECONDS}
    known |= {"worker_id": worker_id or add_worker(engine)} | wishes
    with engine.begin() as conn:
        claimed = claim(conn, **known)
    assert claimed is not None
    return claimed


def checkpoint(engine: Engine, lease: Lease, step: int, *, kind: str = "interval", **summary: Any) -> CheckpointRef:
    """A complete checkpoint of one chunk for the model and two for the state."""
    sizes = {"model_size": 3, "state_size": 1_000_001}
    with engine.begin() as conn:
        ref = begin_checkpoint(conn, lease, step=step, kind=kind, **sizes, summary=summary)
    chunks = [(ref.model_blob_id, 0, b"abc"), (ref.state_blob_id, 0, b"x" * 1_000_000), (ref.state_blob_id, 1, b"y")]
    for blob_id, seq, data in chunks:
        with engine.begin() as conn:
            put_chunk(conn, lease, blob_id=blob_id, seq=seq, data=data)
    with engine.begin() as conn:
        complete_checkpoint(conn, lease, checkpoint_id=ref.id, model_sha256=b"m" * 32, state_sha256=b"s" * 32)
    return ref


def segment(step0: int, step1: int, value: float = 0.5, key: str = "train/loss") -> Segment:
    steps = list(range(step0, step1 + 1))
    return Segment(step0, step1, {key: (steps, [float(s) for s in steps], [value] * len(steps))})


def expire(engine: Engine, job_id: UUID) -> None:
    """Its lease runs out now."""
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == job_id).values(lease_until=func.clock_timestamp()))


def now_due(engine: Engine, job_id: UUID) -> None:
    """Its back-off is over."""
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == job_id).values(not_before=func.clock_timestamp()))


def job_row(engine: Engine, job_id: UUID) -> Row[Any]:
    with engine.connect() as conn:
        return conn.execute(select(job).where(job.c.id == job_id)).one()


def attempts(engine: Engine, job_id: UUID) -> list[Row[Any]]:
    with engine.connect() as conn:
        return list(conn.execute(select(attempt).where(attempt.c.job_id == job_id).order_by(attempt.c.number)))


def events(engine: Engine, job_id: UUID) -> list[str]:
    with engine.connect() as conn:
        query = select(job_event.c.kind).where(job_event.c.job_id == job_id).order_by(job_event.c.id)
        return list(conn.execute(query).scalars())


def everything(engine: Engine) -> dict[str, list[str]]:
    """All rows of all tables."""
    with engine.connect() as conn:
        return {
            name: list(conn.execute(text(f'SELECT t::text FROM "{name}" t ORDER BY 1')).scalars())
            for name in metadata.tables
        }


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what no event announces, such as a session that waits for a lock."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def waits_for_lock(engine: Engine) -> bool:
    with engine.connect() as conn:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(conn.execute(text(waiting)).scalar_one())


def only_reads(engine: Engine, value: str) -> None:
    """The database from its next session on; where it only reads, all sessions are new ones."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("SET default_transaction_read_only = off"))
        name = conn.execute(text("SELECT current_database()")).scalar_one()
        conn.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}"))
        if value == "on":
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> :me"
            me = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
            conn.execute(text(others), {"name": name, "me": me})
            conn.invalidate()
