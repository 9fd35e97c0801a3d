"""What is kept of a job's checkpoints, and that what is not gives its space back."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, text, update

from jobs.blobs import drop_empty_partitions, ensure_partitions, vacuum
from jobs.garbage import remove
from jobs.lifecycle.check import request_verify
from jobs.lifecycle.checkpoints import CheckpointRef
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.submit import submit
from jobs.lifecycle.work import begin_checkpoint, complete_checkpoint, crash, put_chunk, set_aside
from jobs.tables import BLOBS_PER_PARTITION, CHUNK_BYTES, blob, checkpoint, job
from tests.jobs.scenario import ERROR, RESOLVED, add_job, spec, start
from tests.jobs.scenario import checkpoint as save


def begun(engine: Engine, project_id: int, **parts: Any) -> Lease:
    add_job(engine, project_id, **parts)
    return start(engine).lease


def steps(engine: Engine, job_id: UUID) -> list[int]:
    with engine.connect() as conn:
        query = select(checkpoint.c.step).where(checkpoint.c.job_id == job_id).order_by(checkpoint.c.step)
        return list(conn.execute(query).scalars())


def deleting(engine: Engine) -> set[int]:
    with engine.connect() as conn:
        return set(conn.execute(select(blob.c.id).where(blob.c.state == "deleting")).scalars())


@pytest.mark.parametrize(
    ("rule", "kept"), [({}, [30, 40]), ({"keep_last": 1}, [40]), ({"keep_last": None}, [10, 20, 30, 40])]
)
def test_the_last_interval_checkpoints_stay(engine: Engine, project_id: int, rule: Any, kept: list[int]) -> None:
    lease = begun(engine, project_id, checkpoints=rule)
    saved = {step: save(engine, lease, step) for step in (10, 20, 30, 40)}
    assert steps(engine, lease.job_id) == kept
    gone = [saved[step] for step in saved if step not in kept]
    assert deleting(engine) == {blob_id for ref in gone for blob_id in (ref.model_blob_id, ref.state_blob_id)}


def test_a_job_of_an_earlier_release_keeps_two(engine: Engine, project_id: int) -> None:
    lease = begun(engine, project_id)
    with engine.begin() as conn:
        conn.execute(text("UPDATE job SET spec = (spec::jsonb - 'checkpoints')::json"))
    for step in (10, 20, 30):
        save(engine, lease, step)
    assert steps(engine, lease.job_id) == [20, 30]


def test_other_kinds_and_pinned_ones_stay_and_do_not_count(engine: Engine, project_id: int) -> None:
    lease = begun(engine, project_id)
    save(engine, lease, 5, kind="pause")
    pinned = save(engine, lease, 10)
    with engine.begin() as conn:
        conn.execute(update(checkpoint).where(checkpoint.c.id == pinned.id).values(pinned=True))
    for step in (20, 30, 40):
        save(engine, lease, step)
    save(engine, lease, 45, kind="final")
    assert steps(engine, lease.job_id) == [5, 10, 30, 40, 45]


def test_what_a_check_that_has_not_ended_needs_stays(engine: Engine, project_id: int) -> None:
    lease = begun(engine, project_id)
    first, second = save(engine, lease, 10), save(engine, lease, 20)
    with engine.begin() as conn:
        check = request_verify(conn, project_id=project_id, checkpoint_id=second.id).job_id
    for step in (30, 40, 50):
        save(engine, lease, step)
    assert steps(engine, lease.job_id) == [10, 20, 40, 50]
    with engine.begin() as conn:
        ended = {"state": "cancelled", "finished_at": func.clock_timestamp()}
        conn.execute(update(job).where(job.c.id == check).values(ended))
    save(engine, lease, 60)
    assert steps(engine, lease.job_id) == [50, 60]
    assert {first.model_blob_id, second.state_blob_id} <= deleting(engine)


def test_the_last_good_one_of_a_divergence_under_watch_stays(engine: Engine, project_id: int) -> None:
    lease = begun(engine, project_id)
    for step in (10, 20, 30):
        _store(engine, lease, step, needed=10 if step == 30 else None, size=1)
    assert steps(engine, lease.job_id) == [10, 20, 30]


def test_a_damaged_one_does_not_count(engine: Engine, project_id: int) -> None:
    lease = begun(engine, project_id)
    save(engine, lease, 10)
    torn = save(engine, lease, 20)
    with engine.begin() as conn:
        crash(conn, lease, error=ERROR, log=None)
        conn.execute(update(job).values(not_before=func.clock_timestamp()))
    lease = start(engine).lease
    with engine.begin() as conn:
        set_aside(conn, lease, checkpoint_id=torn.id, damage="torn")
    save(engine, lease, 20)
    assert steps(engine, lease.job_id) == [10, 20], "torn, of attempt 1, is beyond the second attempt's start"
    save(engine, lease, 30)
    assert steps(engine, lease.job_id) == [20, 30]


def test_a_key_of_an_earlier_release_still_finds_its_job(engine: Engine, project_id: int) -> None:
    """The digest of a spec without checkpoints is what it was before there were any."""
    with engine.begin() as conn:
        asked = {"project_id": project_id, "resolved": RESOLVED, "idempotency_key": "k"}
        made = submit(conn, spec=spec(), **asked)
        document = spec().model_dump(mode="json")
        del document["checkpoints"]
        before = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
        assert conn.execute(select(job.c.request_sha256).where(job.c.id == made.job_id)).scalar_one() == before


def _store(
    engine: Engine, lease: Lease, step: int, *, size: int, needed: int | None = None
) -> tuple[CheckpointRef, list[int]]:
    """A complete checkpoint of `size` random bytes; it, and the blobs that are kept no longer."""
    with engine.begin() as conn:
        ref = begin_checkpoint(conn, lease, step=step, kind="interval", model_size=size, state_size=1, summary={})
    for blob_id, length in ((ref.model_blob_id, size), (ref.state_blob_id, 1)):
        for seq in range(-(-length // CHUNK_BYTES)):
            data = os.urandom(min(CHUNK_BYTES, length - seq * CHUNK_BYTES))
            with engine.begin() as conn:
                put_chunk(conn, lease, blob_id=blob_id, seq=seq, data=data)
    with engine.begin() as conn:
        hashes = {"model_sha256": b"m" * 32, "state_sha256": b"s" * 32}
        return ref, complete_checkpoint(conn, lease, checkpoint_id=ref.id, needed=needed, **hashes)


def test_the_database_does_not_grow(engine: Engine, project_id: int) -> None:
    """250 megabytes of checkpoints leave less than a tenth of that."""
    lease = begun(engine, project_id)
    size = text("SELECT pg_database_size(current_database())")
    with engine.connect() as conn:
        before = conn.execute(size).scalar_one()
    for step in range(1, 51):
        _, surplus = _store(engine, lease, step, size=5_000_000)
        remove(engine, surplus)
        vacuum(engine, surplus)
    with engine.connect() as conn:
        assert conn.execute(size).scalar_one() - before < 25_000_000


def test_partitions_without_chunks_are_dropped(engine: Engine, project_id: int) -> None:
    lease = begun(engine, project_id, checkpoints={"keep_last": 1})
    number = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'blob_chunk'::regclass"
    for step in range(1, BLOBS_PER_PARTITION // 2 + 3):
        _, surplus = _store(engine, lease, step, size=1)
        remove(engine, surplus)
        ensure_partitions(engine)
    with engine.connect() as conn:
        before = conn.execute(text(number)).scalar_one()
    assert drop_empty_partitions(engine) == 1
    assert drop_empty_partitions(engine) == 0
    with engine.connect() as conn:
        assert conn.execute(text(number)).scalar_one() == before - 1
    ref, _ = _store(engine, lease, 1_000, size=1)
    assert steps(engine, lease.job_id) == [1_000]
    vacuum(engine, [0, ref.model_blob_id])
