"""Blobs: chunks find a partition, only complete blobs are read, and any range comes back exactly."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete, func, insert, text, update
from sqlalchemy.exc import OperationalError

from jobs import blobs
from jobs.errors import BlobNotComplete, NotFound
from jobs.tables import BLOBS_PER_PARTITION, CHUNK_BYTES, blob, blob_chunk

CONTENT = b"".join(hashlib.sha256(n.to_bytes(4)).digest() for n in range(78_126))
Upload = Callable[[bytes], int]


@pytest.fixture
def upload(engine: Engine, project_id: int) -> Upload:
    """Stores a complete blob."""

    def stored(content: bytes) -> int:
        with engine.begin() as conn:
            blob_id = blobs.insert_blob(conn, project_id, len(content))
            for seq in range(-(-len(content) // CHUNK_BYTES)):
                part = content[seq * CHUNK_BYTES : (seq + 1) * CHUNK_BYTES]
                conn.execute(insert(blob_chunk).values(blob_id=blob_id, seq=seq, data=part))
            done = {"state": "complete", "sha256": hashlib.sha256(content).digest()}
            changes = done | {"completed_at": func.clock_timestamp()}
            conn.execute(update(blob).where(blob.c.id == blob_id).values(changes))
        return blob_id

    return stored


def partitions(engine: Engine) -> list[str]:
    listed = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'blob_chunk'::regclass ORDER BY 1"
    with engine.connect() as conn:
        return list(conn.execute(text(listed)).scalars())


@pytest.mark.parametrize(
    ("size", "chunks"), [(0, 0), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (3 * CHUNK_BYTES, 3)]
)
def test_a_blob_announces_its_chunks(engine: Engine, project_id: int, size: int, chunks: int) -> None:
    with engine.begin() as conn:
        blob_id = blobs.insert_blob(conn, project_id, size)
        row = conn.execute(blob.select()).one()
    assert (row.id, row.size, row.n_chunks, row.state) == (blob_id, size, chunks, "uploading")


def test_a_whole_blob(engine: Engine, upload: Upload) -> None:
    blob_id = upload(CONTENT)
    with engine.connect() as conn:
        info = blobs.blob_info(conn, blob_id)
    assert (info.size, info.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).digest())
    parts = list(blobs.read_range(engine, blob_id))
    assert [len(part) for part in parts] == [CHUNK_BYTES, CHUNK_BYTES, len(CONTENT) - 2 * CHUNK_BYTES]
    assert b"".join(parts) == CONTENT


RANGES = [
    (0, 1),
    (5, 5),
    (9, 3),
    (CHUNK_BYTES - 1, CHUNK_BYTES + 1),
    (CHUNK_BYTES, 2 * CHUNK_BYTES),
    (17, 2 * CHUNK_BYTES + 17),
    (len(CONTENT) - 3, len(CONTENT)),
    (len(CONTENT) - 3, len(CONTENT) + 100),
    (len(CONTENT), None),
]


def test_any_range(engine: Engine, upload: Upload) -> None:
    blob_id = upload(CONTENT)
    for start, stop in RANGES:
        assert b"".join(blobs.read_range(engine, blob_id, start, stop)) == CONTENT[start:stop]


def test_an_empty_blob(engine: Engine, upload: Upload) -> None:
    assert list(blobs.read_range(engine, upload(b""))) == []


def test_no_connection_is_held_between_chunks(engine: Engine, upload: Upload) -> None:
    reading = blobs.read_range(engine, upload(CONTENT))
    next(reading)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_an_unfinished_blob_is_not_read(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        blob_id = blobs.insert_blob(conn, project_id, 10)
        with pytest.raises(BlobNotComplete):
            blobs.blob_info(conn, blob_id)
    with pytest.raises(BlobNotComplete):
        blobs.read_range(engine, blob_id)


def test_unknown_and_deleted_blobs_are_not_found(engine: Engine, upload: Upload) -> None:
    with pytest.raises(NotFound):
        blobs.read_range(engine, 4_711)
    blob_id = upload(CONTENT)
    reading = blobs.read_range(engine, blob_id)
    next(reading)
    with engine.begin() as conn:
        conn.execute(update(blob).values(state="deleting"))
    with pytest.raises(NotFound):
        next(reading)
    with pytest.raises(NotFound):
        blobs.read_range(engine, blob_id)


def test_a_lost_chunk_ends_the_download_with_an_error(engine: Engine, upload: Upload) -> None:
    blob_id = upload(CONTENT)
    with engine.begin() as conn:
        conn.execute(delete(blob_chunk).where(blob_chunk.c.seq == 1))
    with pytest.raises(NotFound):
        b"".join(blobs.read_range(engine, blob_id))


def test_partitions_are_made_ahead_and_only_once(engine: Engine, upload: Upload) -> None:
    assert partitions(engine) == ["blob_chunk_00000000", "blob_chunk_00000001"]
    blobs.ensure_partitions(engine)
    assert blobs.ensure_partitions(engine) == 0
    before = len(partitions(engine))
    _jump(engine, before * BLOBS_PER_PARTITION - 2)
    upload(b"the last blob before the end")
    blobs.ensure_partitions(engine)
    assert len(partitions(engine)) > before
    upload(b"the last id of a partition")
    blob_id = upload(b"the first of the next")
    assert blob_id == before * BLOBS_PER_PARTITION
    assert b"".join(blobs.read_range(engine, blob_id)) == b"the first of the next"


def test_partitions_that_ids_jumped_over_are_made_too(engine: Engine, project_id: int) -> None:
    _jump(engine, 7 * BLOBS_PER_PARTITION)
    with engine.begin() as conn:
        blobs.insert_blob(conn, project_id, 1)
    blobs.ensure_partitions(engine)
    numbers = [int(name[-8:]) for name in partitions(engine)]
    assert numbers == list(range(numbers[-1] + 1))
    assert numbers[-1] > 7


def test_new_partitions_store_chunks_uncompressed(engine: Engine) -> None:
    blobs.ensure_partitions(engine)
    stored = "SELECT attstorage::text FROM pg_attribute WHERE attrelid = CAST(:name AS regclass) AND attname = 'data'"
    with engine.connect() as conn:
        assert {conn.execute(text(stored), {"name": name}).scalar_one() for name in partitions(engine)} == {"e"}


def test_two_processes_make_partitions_at_once(engine: Engine) -> None:
    made: list[int] = []
    start = threading.Barrier(4)

    def ensure() -> None:
        start.wait(timeout=10)
        made.append(blobs.ensure_partitions(engine))

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(made) == [0, 0, 0, blobs.PARTITIONS_AHEAD - 1]


def test_a_table_in_use_is_not_waited_for_long(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "LOCK_TIMEOUT_SECONDS", 0.05)
    with engine.connect() as reader:
        reader.execute(blob_chunk.select())
        with pytest.raises(OperationalError, match="lock timeout"):
            blobs.ensure_partitions(engine)
    assert blobs.ensure_partitions(engine) == blobs.PARTITIONS_AHEAD - 1


def _jump(engine: Engine, blob_id: int) -> None:
    """Let the next blob have this id."""
    with engine.begin() as conn:
        conn.execute(text(f"ALTER TABLE blob ALTER COLUMN id RESTART WITH {blob_id}"))
