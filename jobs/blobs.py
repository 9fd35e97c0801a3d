"""Blobs: byte strings of any size in chunks of 1,000,000 bytes, readable once they are complete.

A blob's row announces its size; its chunks follow in short transactions and are made complete by
`jobs.lifecycle.checkpoints`. Chunks live in partitions of 256 blobs, which `ensure_partitions` makes ahead. Reading
takes a transaction per chunk, so that a slow download holds no snapshot and no lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from psycopg.errors import InsufficientPrivilege, LockNotAvailable, UndefinedTable
from sqlalchemy import ColumnElement, Connection, Engine, LargeBinary, func, insert, select, text
from sqlalchemy.exc import DBAPIError

from jobs.errors import BlobNotComplete, NotFound
from jobs.tables import BLOBS_PER_PARTITION, CHUNK_BYTES, blob, blob_chunk, partition_ddl

PARTITIONS_AHEAD = 2
"""Whole partitions that are kept empty: room for 512 blobs, or 256 checkpoints, between two calls."""
LOCK_TIMEOUT_SECONDS = 2
COPIES = 4
"""What a partition that is written anew takes for a while, of its new size: a copy, itself, its log, and some more."""
MOST_COPIED_BYTES = 64_000_000
"""It is locked meanwhile."""

_NEWEST_PARTITION = text("""
    SELECT max(right(child.relname, 8)::integer)
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'blob_chunk'::regclass
""")


_PARTITIONS = text("""
    SELECT right(child.relname, 8)::integer
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'blob_chunk'::regclass
""")


@dataclass(frozen=True)
class BlobInfo:
    """A complete blob: its size in bytes and the SHA-256 of its content."""

    id: int
    size: int
    sha256: bytes


def insert_blob(conn: Connection, project_id: int, size: int) -> int:
    """Announce a blob of `size` bytes; its id. Chunks are numbered from 0, all but the last of CHUNK_BYTES."""
    row = {"project_id": project_id, "size": size, "n_chunks": -(-size // CHUNK_BYTES)}
    return int(conn.execute(insert(blob).values(row).returning(blob.c.id)).scalar_one())


def blob_info(conn: Connection, blob_id: int) -> BlobInfo:
    """Raises NotFound, or BlobNotComplete for a blob without all its chunks.

    Knows no projects: the id comes from a checkpoint that the caller may see.
    """
    row = conn.execute(select(blob).where(blob.c.id == blob_id, blob.c.state != "deleting")).one_or_none()
    if row is None:
        raise NotFound("blob", blob_id)
    if row.state != "complete":
        raise BlobNotComplete(blob_id)
    return BlobInfo(row.id, row.size, row.sha256)


def read_range(engine: Engine, blob_id: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes from `start` up to `stop` (the end where None), a chunk or less at a time.

    Raises as `blob_info` does at once, before the first byte is asked for; NotFound in the middle where the blob is
    deleted meanwhile.
    """
    with engine.connect() as conn:
        info = blob_info(conn, blob_id)
    return _parts(engine, info.id, start, info.size if stop is None else min(stop, info.size))


def _parts(engine: Engine, blob_id: int, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        seq, offset = divmod(start, CHUNK_BYTES)
        part = _read(engine, blob_id, seq, offset, min(CHUNK_BYTES - offset, stop - start))
        yield part
        start += len(part)


def _read(engine: Engine, blob_id: int, seq: int, offset: int, size: int) -> bytes:
    data: ColumnElement[bytes] = blob_chunk.c.data
    if size < CHUNK_BYTES:
        data = func.substring(data, offset + 1, size, type_=LargeBinary)
    readable = select(blob.c.id).where(blob.c.id == blob_id, blob.c.state == "complete").exists()
    query = select(data).where(blob_chunk.c.blob_id == blob_id, blob_chunk.c.seq == seq, readable)
    with engine.connect() as conn:
        part: bytes | None = conn.execute(query.execution_options(binary_results=True)).scalar_one_or_none()
    if not part:
        raise NotFound("blob", blob_id)
    return part


def ensure_partitions(engine: Engine) -> int:
    """Make the partitions that the next blobs need; how many were made, mostly 0. Safe beside other callers.

    Raises OperationalError after LOCK_TIMEOUT_SECONDS where the table is in use all the time; try again later.
    """
    with engine.connect() as conn:
        if not _missing(conn):
            return 0
    with engine.begin() as conn:
        conn.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("traind partitions of blob_chunk", 0))))
        missing = _missing(conn)
        for number in missing:
            conn.execute(text(partition_ddl(number)))
        return len(missing)


def vacuum(engine: Engine, blob_ids: Collection[int]) -> None:
    """Make the space of deleted chunks free for the next ones: VACUUM of the partitions of these blobs.

    Does not wait for a partition that somebody else vacuums. Autovacuum looks once a minute, too late for a job that
    saves every few steps.
    """
    numbers = {blob_id // BLOBS_PER_PARTITION for blob_id in blob_ids}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for number in sorted(numbers & set(conn.execute(_PARTITIONS).scalars())):
            conn.execute(text(f"VACUUM (SKIP_LOCKED) blob_chunk_{number:08d}"))


def clear_partitions(engine: Engine, doomed: Collection[int], *, room: int = 0) -> int:
    """Take all chunks of these blobs, which nothing names, from their partitions at once; how many bytes.

    Only from a partition of which so little stays that `room` bytes on the disk can bear it: that is written anew. It
    gives the space back without a vacuum, and needs little log, for which a nearly full disk has no room. A partition
    that is in use all the time is left as it is.
    """
    of_partition: dict[int, list[int]] = {}
    for blob_id in doomed:
        of_partition.setdefault(blob_id // BLOBS_PER_PARTITION, []).append(blob_id)
    most = min(room // COPIES, MOST_COPIED_BYTES)
    return sum(_clear(engine, number, blob_ids, most) for number, blob_ids in sorted(of_partition.items()))


def _clear(engine: Engine, number: int, doomed: Collection[int], most: int) -> int:
    first = number * BLOBS_PER_PARTITION
    others = blob.c.id.between(first, first + BLOBS_PER_PARTITION - 1), blob.c.id.not_in(doomed)
    staying = select(func.coalesce(func.sum(blob.c.size), 0)).where(*others)
    with engine.connect() as conn:
        if conn.execute(staying).scalar_one() > most or number not in set(conn.execute(_PARTITIONS).scalars()):
            return 0
    name = f"blob_chunk_{number:08d}"
    try:
        with engine.begin() as conn:
            conn.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
            conn.execute(text(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))
            return 0 if conn.execute(staying).scalar_one() > most else _rewrite(conn, name, doomed)
    except DBAPIError as error:
        if isinstance(error.orig, LockNotAvailable | UndefinedTable | InsufficientPrivilege):
            return 0
        raise


def _rewrite(conn: Connection, name: str, doomed: Collection[int]) -> int:
    """Leave the chunks of these blobs out of the locked partition; their bytes."""
    given = {"doomed": list(doomed)}
    measure = f"SELECT coalesce(sum(octet_length(data)), 0) FROM {name} WHERE blob_id = ANY(:doomed)"  # noqa: S608
    n_bytes = conn.execute(text(measure), given).scalar_one()
    rest = f"SELECT * FROM {name} WHERE blob_id <> ALL(:doomed)"  # noqa: S608
    conn.execute(text(f"CREATE TEMPORARY TABLE staying ON COMMIT DROP AS {rest}"), given)
    conn.execute(text(f"TRUNCATE {name}"))
    conn.execute(text(f"INSERT INTO {name} SELECT * FROM staying"))  # noqa: S608
    return int(n_bytes)


def make_log_short(engine: Engine) -> None:
    """Have the server write a checkpoint of its own, so that it needs less of its log; if our role may."""
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("CHECKPOINT"))
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise


def drop_empty_partitions(engine: Engine) -> int:
    """Drop partitions that have no chunk and get none any more; how many. Safe beside other callers.

    Raises OperationalError after LOCK_TIMEOUT_SECONDS where the table is in use all the time; try again later.
    """
    with engine.connect() as conn:
        closed = _closed(conn)
    return sum(_drop_partition(engine, number) for number in closed)


def _closed(conn: Connection) -> list[int]:
    """Partitions below all blobs that exist and will, the oldest first."""
    oldest_blob = conn.execute(select(func.min(blob.c.id))).scalar_one()
    if oldest_blob is None:
        return []
    numbers = conn.execute(_PARTITIONS).scalars()
    with_blobs = set(conn.execute(select(blob.c.id // BLOBS_PER_PARTITION).distinct()).scalars())
    return sorted(number for number in numbers if number < max(with_blobs) and number not in with_blobs)


def _drop_partition(engine: Engine, number: int) -> bool:
    name = f"blob_chunk_{number:08d}"
    with engine.begin() as conn:
        conn.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("traind partitions of blob_chunk", 0))))
        if number not in set(conn.execute(_PARTITIONS).scalars()):
            return False
        of_partition = blob_chunk.c.blob_id.between(
            number * BLOBS_PER_PARTITION, (number + 1) * BLOBS_PER_PARTITION - 1
        )
        if conn.execute(select(select(blob_chunk.c.seq).where(of_partition).exists())).scalar_one():
            return False
        conn.execute(text(f"DROP TABLE {name}"))
    return True


def _missing(conn: Connection) -> range:
    newest_blob = conn.execute(select(func.coalesce(func.max(blob.c.id), 0))).scalar_one()
    newest = conn.execute(_NEWEST_PARTITION).scalar_one()
    return range(newest + 1, newest_blob // BLOBS_PER_PARTITION + PARTITIONS_AHEAD + 1)
