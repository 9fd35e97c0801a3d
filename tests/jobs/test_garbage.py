"""Blobs that nothing will read are found and removed; nothing else is, however calls meet or break off."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, insert, select, text, update

from jobs import blobs, garbage
from jobs.blobs import clear_partitions, insert_blob, read_range
from jobs.errors import Fenced
from jobs.garbage import CHUNKS_AT_ONCE, GRACE_SECONDS, Collected, Garbage, collect, survey
from jobs.lifecycle.checkpoints import CheckpointRef
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import begin_checkpoint, complete_checkpoint, crash, put_chunk
from jobs.tables import attempt, blob, blob_chunk, checkpoint
from tests.jobs.scenario import ERROR, add_job, start
from tests.jobs.scenario import checkpoint as whole_checkpoint

NONE = Garbage(0, 0, 0, 0)


@pytest.fixture
def lease(engine: Engine, project_id: int) -> Lease:
    add_job(engine, project_id)
    return start(engine).lease


def begin(engine: Engine, lease: Lease, step: int = 10) -> CheckpointRef:
    """An upload under way: one of two chunks of the state is there."""
    with engine.begin() as conn:
        ref = begin_checkpoint(conn, lease, step=step, kind="interval", model_size=3, state_size=1_000_001, summary={})
    with engine.begin() as conn:
        put_chunk(conn, lease, blob_id=ref.model_blob_id, seq=0, data=b"abc")
        put_chunk(conn, lease, blob_id=ref.state_blob_id, seq=0, data=b"x" * 1_000_000)
    return ref


def end(engine: Engine, lease: Lease, *, seconds_ago: float = GRACE_SECONDS + 60) -> None:
    """The attempt crashed that long ago, and its blobs are older still."""
    with engine.begin() as conn:
        crash(conn, lease, error=ERROR, log=None)
        then = func.clock_timestamp() - timedelta(seconds=seconds_ago)
        conn.execute(update(attempt).where(attempt.c.lease_token == lease.token).values(ended_at=then))
        conn.execute(update(blob).values(created_at=then))


def unnamed(engine: Engine, project_id: int, *, chunks: int = 1, seconds_ago: float = GRACE_SECONDS + 60) -> int:
    with engine.begin() as conn:
        blob_id = insert_blob(conn, project_id, 10 * chunks)
        then = func.clock_timestamp() - timedelta(seconds=seconds_ago)
        conn.execute(update(blob).where(blob.c.id == blob_id).values(created_at=then))
        rows = [{"blob_id": blob_id, "seq": seq, "data": b"0123456789"} for seq in range(chunks)]
        conn.execute(insert(blob_chunk), rows)
    return blob_id


def stored(engine: Engine) -> tuple[set[int], set[int]]:
    """The blobs that have a row, and those that have chunks."""
    with engine.connect() as conn:
        chunks = conn.execute(select(blob_chunk.c.blob_id)).scalars()
        return set(conn.execute(select(blob.c.id)).scalars()), set(chunks)


def seen(engine: Engine) -> Garbage:
    with engine.connect() as conn:
        return survey(conn)


def test_an_abandoned_upload_goes_and_what_is_complete_stays(engine: Engine, lease: Lease) -> None:
    kept = whole_checkpoint(engine, lease, 5)
    begin(engine, lease)
    end(engine, lease)
    assert seen(engine) == Garbage(2, 1_000_003, 0, 0)
    assert collect(engine) == Collected(2, 1_000_003)
    assert seen(engine) == NONE
    assert stored(engine) == ({kept.model_blob_id, kept.state_blob_id},) * 2
    with engine.connect() as conn:
        assert list(conn.execute(select(checkpoint.c.id)).scalars()) == [kept.id]
    assert b"".join(read_range(engine, kept.model_blob_id)) == b"abc"
    assert collect(engine) == Collected(0, 0)


def test_a_running_upload_is_left_alone_and_can_be_completed(engine: Engine, lease: Lease) -> None:
    ref = begin(engine, lease)
    with engine.begin() as conn:
        conn.execute(update(blob).values(created_at=func.clock_timestamp() - timedelta(days=9)))
    assert seen(engine) == NONE
    assert collect(engine) == Collected(0, 0)
    with engine.begin() as conn:
        put_chunk(conn, lease, blob_id=ref.state_blob_id, seq=1, data=b"y")
        complete_checkpoint(conn, lease, checkpoint_id=ref.id, model_sha256=b"m" * 32, state_sha256=b"s" * 32)
    assert collect(engine) == Collected(0, 0)


@pytest.mark.parametrize("kind", ["abandoned", "unnamed"])
def test_nothing_goes_within_the_grace(engine: Engine, project_id: int, lease: Lease, kind: str) -> None:
    if kind == "abandoned":
        begin(engine, lease)
        end(engine, lease, seconds_ago=GRACE_SECONDS - 60)
    else:
        unnamed(engine, project_id, seconds_ago=GRACE_SECONDS - 60)
    before = stored(engine)
    assert seen(engine) == NONE
    assert collect(engine) == Collected(0, 0)
    assert stored(engine) == before
    assert collect(engine, grace_seconds=0).n_blobs > 0


def test_unnamed_blobs_go_with_chunks_of_any_number(engine: Engine, project_id: int) -> None:
    unnamed(engine, project_id, chunks=2 * CHUNKS_AT_ONCE + 1)
    unnamed(engine, project_id, chunks=1)
    assert seen(engine) == Garbage(0, 0, 2, 10 * (2 * CHUNKS_AT_ONCE + 2))
    assert collect(engine) == Collected(2, 10 * (2 * CHUNKS_AT_ONCE + 2))
    assert stored(engine) == (set(), set())


def partition_bytes(engine: Engine, number: int = 0) -> int:
    with engine.connect() as conn:
        size = text(f"SELECT pg_total_relation_size('blob_chunk_{number:08d}')")
        return int(conn.execute(size).scalar_one())


def noise(engine: Engine, project_id: int, *, chunks: int = 4) -> int:
    """An unnamed blob of `chunks` megabytes."""
    blob_id = unnamed(engine, project_id, chunks=chunks)
    with engine.begin() as conn:
        conn.execute(update(blob).where(blob.c.id == blob_id).values(size=chunks * 1_000_000))
        conn.execute(update(blob_chunk).where(blob_chunk.c.blob_id == blob_id).values(data=os.urandom(1_000_000)))
    return blob_id


def test_a_partition_of_which_nothing_stays_gives_its_space_back_at_once(engine: Engine, project_id: int) -> None:
    """Without a vacuum."""
    for _ in range(3):
        noise(engine, project_id)
    assert partition_bytes(engine) > 12_000_000
    assert collect(engine) == Collected(3, 12_000_000)
    assert partition_bytes(engine) < 100_000
    assert stored(engine) == (set(), set())


def test_with_little_room_the_rest_of_a_partition_is_written_anew(
    engine: Engine, project_id: int, lease: Lease
) -> None:
    """If that fits; what stays is whole, an upload under way goes on, and what is named is not touched."""
    kept = whole_checkpoint(engine, lease, 5)
    for _ in range(3):
        noise(engine, project_id)
    under_way = begin(engine, lease)
    before = partition_bytes(engine)
    assert clear_partitions(engine, [*condemned(engine)], room=1_000_000) == 0
    assert partition_bytes(engine) == before
    assert collect(engine, room=10_000_000) == Collected(3, 12_000_000)
    assert partition_bytes(engine) < 3_000_000
    assert b"".join(read_range(engine, kept.state_blob_id)) == b"x" * 1_000_000 + b"y"
    with engine.begin() as conn:
        put_chunk(conn, lease, blob_id=under_way.state_blob_id, seq=1, data=b"y")
        complete_checkpoint(conn, lease, checkpoint_id=under_way.id, model_sha256=b"m" * 32, state_sha256=b"s" * 32)


def condemned(engine: Engine) -> set[int]:
    with engine.begin() as conn:
        conn.execute(update(blob).where(blob.c.size == 4_000_000).values(state="deleting"))
        return set(conn.execute(select(blob.c.id).where(blob.c.state == "deleting")).scalars())


def test_a_partition_in_use_is_emptied_row_by_row(
    engine: Engine, project_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "LOCK_TIMEOUT_SECONDS", 0.1)
    noise(engine, project_id)
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM blob_chunk"))
        assert collect(engine, room=10_000_000) == Collected(1, 4_000_000)
    assert stored(engine) == (set(), set())


def test_what_is_marked_but_still_named_is_not_removed(engine: Engine, lease: Lease) -> None:
    ref = whole_checkpoint(engine, lease, 5)
    with engine.begin() as conn:
        conn.execute(update(blob).values(state="deleting"))
    assert collect(engine) == Collected(0, 0)
    assert stored(engine)[0] == {ref.model_blob_id, ref.state_blob_id}


def test_a_call_that_broke_off_anywhere_is_finished_by_the_next(
    engine: Engine, project_id: int, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    begin(engine, lease)
    end(engine, lease)
    unnamed(engine, project_id, chunks=CHUNKS_AT_ONCE + 1)
    for place in ("_empty", "_drop"):
        with monkeypatch.context() as patch:
            patch.setattr(garbage, place, killed)
            with pytest.raises(Killed):
                collect(engine)
    assert stored(engine)[0]
    collect(engine)
    assert stored(engine) == (set(), set())


def test_a_late_chunk_of_a_lost_attempt_is_refused(engine: Engine, lease: Lease) -> None:
    ref = begin(engine, lease)
    end(engine, lease)
    collect(engine)
    with engine.begin() as conn, pytest.raises(Fenced):
        put_chunk(conn, lease, blob_id=ref.state_blob_id, seq=1, data=b"y")
    assert stored(engine) == (set(), set())


def test_many_at_once_remove_everything_once(engine: Engine, project_id: int) -> None:
    for _ in range(12):
        unnamed(engine, project_id, chunks=3)
    results: list[Collected] = []
    threads = [threading.Thread(target=lambda: results.append(collect(engine))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collect(engine)
    assert sum(result.n_bytes for result in results) == 12 * 30
    assert stored(engine) == (set(), set())


def test_a_row_that_is_in_use_waits(engine: Engine, project_id: int) -> None:
    blob_id = unnamed(engine, project_id)
    with engine.begin() as conn:
        conn.execute(text("SELECT 1 FROM blob WHERE id = :id FOR UPDATE"), {"id": blob_id})
        assert collect(engine) == Collected(0, 0)
    assert collect(engine) == Collected(1, 10)


def test_the_job_of_the_upload_does_not_matter(engine: Engine, lease: Lease) -> None:
    """Whatever became of the job: running again in another attempt, or gone."""
    begin(engine, lease)
    end(engine, lease)
    again = start(engine).lease
    fresh = begin(engine, again, step=20)
    assert collect(engine).n_blobs == 2
    assert stored(engine)[0] == {fresh.model_blob_id, fresh.state_blob_id}
