"""Garbage: blobs that nothing will ever read, found (`survey`) and removed (`collect`).

Two kinds. An **abandoned** upload belongs to a checkpoint that was never completed and whose attempt has ended: its
writes are fenced, so it never will be. An **unnamed** blob is one that no checkpoint names. Both are left alone for a
grace, within which a chunk that was on its way when the attempt ended has arrived or is lost.

Removing is two-phase and may stop anywhere: blobs are first marked `deleting` (their unfinished checkpoint goes in the
same transaction), then lose their chunks some at a time, and their row last. Whatever else marks a blob `deleting`
has it removed here. Called by every worker now and then, and by `traind gc`; several at once do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Engine, Select, delete, exists, func, select, union, update

from jobs.blobs import clear_partitions, make_log_short, vacuum
from jobs.lifecycle.lease import after
from jobs.tables import attempt, blob, blob_chunk, checkpoint

GRACE_SECONDS = 300.0
"""After an attempt ended, or a blob was made that nothing names; far longer than one chunk's transaction may take."""
CHUNKS_AT_ONCE = 64
CHUNKS_IN_LITTLE_ROOM = 16
BLOBS_AT_ONCE = 256
VACUUM_BYTES = 64_000_000
"""So much is deleted before its space is made free for new chunks at once; less is left to autovacuum."""


@dataclass(frozen=True)
class Garbage:
    """Blobs and the bytes of their stored chunks."""

    n_abandoned: int
    abandoned_bytes: int
    n_unnamed: int
    unnamed_bytes: int

    def __bool__(self) -> bool:
        return bool(self.n_abandoned or self.n_unnamed)


@dataclass(frozen=True)
class Collected:
    """What one call removed."""

    n_blobs: int
    n_bytes: int


def survey(conn: Connection, *, grace_seconds: float = GRACE_SECONDS) -> Garbage:
    """What `collect` would remove now; reads only."""
    abandoned = _abandoned(grace_seconds).subquery()
    parts = union(select(abandoned.c.model_blob_id.label("id")), select(abandoned.c.state_blob_id)).subquery()
    counts = [*_measure(conn, select(parts.c.id)), *_measure(conn, _unnamed(grace_seconds))]
    return Garbage(*counts)


def collect(
    engine: Engine,
    *,
    grace_seconds: float = GRACE_SECONDS,
    limit: int = BLOBS_AT_ONCE,
    room: int | None = None,
) -> Collected:
    """Remove garbage, at most about `limit` blobs of it, in many short transactions.

    `room` is what is free on the database's disk, if that is little (`jobs.storage`): then it goes so that the server's
    log stays short, and that space is given back at once where it can be.
    """
    with engine.begin() as conn:
        _condemn(conn, grace_seconds, limit)
        marked = list(conn.execute(_condemned()).scalars())
    cleared = clear_partitions(engine, marked, room=room or 0)
    condemned = marked[:limit]
    removed = remove(engine, condemned, little_room=room is not None)
    if removed.n_bytes >= VACUUM_BYTES and room is None:
        vacuum(engine, condemned)
    return Collected(removed.n_blobs, removed.n_bytes + cleared)


def remove(engine: Engine, blob_ids: Iterable[int], *, little_room: bool = False) -> Collected:
    """Remove these blobs, marked `deleting` before, in many short transactions; may stop anywhere (see `collect`)."""
    n_blobs = n_bytes = 0
    for blob_id in blob_ids:
        n_bytes += sum(_empty(engine, blob_id, little_room=little_room))
        with engine.begin() as conn:
            n_blobs += _drop(conn, blob_id)
    return Collected(n_blobs, n_bytes)


def _abandoned(grace_seconds: float) -> Select[int, int, int]:
    """Unfinished checkpoints of attempts that ended."""
    c = checkpoint.c
    query = select(c.id, c.model_blob_id, c.state_blob_id)
    query = query.join(attempt, (attempt.c.job_id == c.job_id) & (attempt.c.number == c.attempt))
    return query.where(~c.complete, attempt.c.ended_at < after(-grace_seconds))


def _unnamed(grace_seconds: float) -> Select[int]:
    return select(blob.c.id).where(blob.c.created_at < after(-grace_seconds), *_unnamed_blob())


def _condemned() -> Select[int]:
    return select(blob.c.id).where(blob.c.state == "deleting", *_unnamed_blob()).order_by(blob.c.id)


def _unnamed_blob() -> list[ColumnElement[bool]]:
    """That nothing names the blob. Who gives blobs another owner adds it here."""
    owners = (checkpoint.c.model_blob_id, checkpoint.c.state_blob_id)
    return [~exists().where(owner == blob.c.id) for owner in owners]


def _measure(conn: Connection, blob_ids: Select[int]) -> tuple[int, int]:
    """How many blobs these are, and how many bytes of them are stored."""
    ids = blob_ids.cte("ids")
    n_bytes = select(func.coalesce(func.sum(func.octet_length(blob_chunk.c.data)), 0)).where(
        blob_chunk.c.blob_id.in_(select(ids.c.id))
    )
    row = conn.execute(select(select(func.count()).select_from(ids).scalar_subquery(), n_bytes.scalar_subquery())).one()
    return int(row[0]), int(row[1])


def _condemn(conn: Connection, grace_seconds: float, limit: int) -> None:
    """Mark garbage, its unfinished checkpoints gone. A row that somebody else is at waits for the next call."""
    abandoned = _abandoned(grace_seconds).limit(limit).with_for_update(of=checkpoint, skip_locked=True).cte("abandoned")
    conn.execute(delete(checkpoint).where(checkpoint.c.id.in_(select(abandoned.c.id))))
    unnamed = _unnamed(grace_seconds).where(blob.c.state != "deleting").limit(2 * limit)
    ids = unnamed.with_for_update(skip_locked=True).cte("ids")
    conn.execute(update(blob).where(blob.c.id.in_(select(ids.c.id))).values(state="deleting"))


def _empty(engine: Engine, blob_id: int, *, little_room: bool) -> Iterator[int]:
    """Remove the chunks; the bytes of each transaction, which lasts as long as CHUNKS_AT_ONCE chunks take."""
    at_once = CHUNKS_IN_LITTLE_ROOM if little_room else CHUNKS_AT_ONCE
    chunks = select(blob_chunk.c.seq).where(blob_chunk.c.blob_id == blob_id).limit(at_once)
    some = chunks.with_for_update(skip_locked=True).cte("some")
    these = (blob_chunk.c.blob_id == blob_id) & blob_chunk.c.seq.in_(select(some.c.seq))
    while True:
        with engine.begin() as conn:
            sizes = conn.execute(delete(blob_chunk).where(these).returning(func.octet_length(blob_chunk.c.data)))
            removed = list(sizes.scalars())
        if not removed:
            return
        if little_room:
            make_log_short(engine)
        yield sum(removed)


def _drop(conn: Connection, blob_id: int) -> int:
    """Remove the blob's row, if it has no chunks any more; how many that were."""
    empty = ~exists().where(blob_chunk.c.blob_id == blob.c.id)
    return conn.execute(delete(blob).where(blob.c.id == blob_id, blob.c.state == "deleting", empty)).rowcount
