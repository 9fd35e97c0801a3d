"""Removal: interval checkpoints that are kept no longer. What a user deletes is in `jobs.lifecycle.delete`.

Rows go at once, their blobs are marked `deleting` in the same transaction; `jobs.garbage` then removes the bytes, and
may stop anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Select, delete, or_, select, update

from jobs.lifecycle.lease import AnyRow
from jobs.states import FINAL
from jobs.tables import blob, check_run, checkpoint, job
from jobs.visibility import cuts
from traind.spec import CheckpointRule


def prune(conn: Connection, row: AnyRow, needed: int | None = None) -> list[int]:
    """Remove what the locked job's rule does not keep, but that of step `needed`; the blobs, marked.

    Kept are the newest `keep_last` of those that an attempt could start from, whatever is pinned, and what a check
    that has not ended replays. What is older goes, and what a later attempt trained again.
    """
    rule = CheckpointRule.model_validate(row.spec.get("checkpoints", {}))
    if rule.keep_last is None:
        return []
    kept = list(conn.execute(_newest(row, rule.keep_last)))
    if len(kept) < rule.keep_last:
        return []
    line, c = cuts(row.id), checkpoint.c
    surplus = or_(c.step < min(each.step for each in kept), c.step > line.c.cut)
    query = select(c.id).join(line, line.c.number == c.attempt)
    query = query.where(c.job_id == row.id, c.complete, c.kind == "interval", ~c.pinned, surplus, ~checked())
    if needed is not None:
        query = query.where(c.step != needed)
    return remove_rows(conn, list(conn.execute(query).scalars()))


def _newest(row: AnyRow, number: int) -> Select[int, int]:
    line, c = cuts(row.id), checkpoint.c
    query = select(c.id, c.step).join(line, line.c.number == c.attempt)
    usable = c.complete & (c.kind == "interval") & c.damage.is_(None) & (c.step <= line.c.cut)
    return query.where(c.job_id == row.id, usable).order_by(c.step.desc(), c.attempt.desc()).limit(number)


def checked() -> ColumnElement[bool]:
    """Whether a check that has not ended needs the checkpoint."""
    waits = select(check_run.c.id).join(job, job.c.id == check_run.c.id).where(job.c.state.not_in(FINAL))
    named = or_(check_run.c.checkpoint_id == checkpoint.c.id, check_run.c.from_checkpoint_id == checkpoint.c.id)
    return waits.where(named).correlate(checkpoint).exists()


def remove_rows(conn: Connection, checkpoint_ids: Sequence[int]) -> list[int]:
    """Remove the rows, and mark the blobs."""
    if not checkpoint_ids:
        return []
    c = checkpoint.c
    gone = delete(checkpoint).where(c.id.in_(checkpoint_ids)).returning(c.model_blob_id, c.state_blob_id)
    blob_ids = [blob_id for pair in conn.execute(gone) for blob_id in pair]
    conn.execute(update(blob).where(blob.c.id.in_(blob_ids)).values(state="deleting"))
    return blob_ids
