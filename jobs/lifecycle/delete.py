"""Delete: a job that has ended, with all that it owns, or one checkpoint. Called by the api.

Nothing of a deleted job is left: its idempotency key is free again, and its checks go with it. The bytes of checkpoints
are removed by `jobs.garbage` afterwards.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, delete, select, update

from jobs.errors import InUse, NotFound, StateConflict
from jobs.lifecycle.asked import find, shown_state
from jobs.lifecycle.checkpoints import resume_point
from jobs.lifecycle.lease import AnyRow, clock
from jobs.lifecycle.removal import checked, remove_rows
from jobs.lifecycle.transitions import note
from jobs.states import FINAL, Kind, possible
from jobs.tables import check_run, checkpoint, job


def delete_job(conn: Connection, *, project_id: int, job_id: UUID) -> None:
    """Remove a job that has ended. Raises NotFound, StateConflict, or InUse while a check of it has not ended."""
    here = (job.c.id == job_id) & (job.c.project_id == project_id) & (job.c.kind == Kind.TRAIN)
    row = conn.execute(select(job).where(here).with_for_update()).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    if row.state not in FINAL:
        state = shown_state(row)
        raise StateConflict("delete", "job", state, possible(state))
    of_job = select(job.c.id, job.c.state).join(check_run, check_run.c.id == job.c.id)
    checks = conn.execute(
        of_job.where(check_run.c.subject_job_id == job_id).order_by(job.c.id).with_for_update(of=job)
    ).all()
    if active := [str(each.id) for each in checks if each.state not in FINAL]:
        raise InUse(f"job {job_id} has checks that have not ended: {', '.join(active[:3])}; cancel them, or wait")
    saved = conn.execute(select(checkpoint.c.id).where(checkpoint.c.job_id == job_id)).scalars()
    remove_rows(conn, list(saved))
    conn.execute(delete(job).where(job.c.id.in_([job_id, *(each.id for each in checks)])))


def delete_checkpoint(conn: Connection, *, project_id: int, checkpoint_id: int) -> None:
    """Remove one checkpoint. Raises NotFound, or InUse while a job goes on from it or a check needs it."""
    of_id = select(checkpoint.c.job_id).where(checkpoint.c.id == checkpoint_id)
    job_id = conn.execute(of_id).scalar_one_or_none()
    try:
        row = None if job_id is None else find(conn, project_id=project_id, job_id=job_id)
    except NotFound:
        row = None
    found = conn.execute(select(checkpoint).where(checkpoint.c.id == checkpoint_id)).one_or_none()
    if row is None or found is None:
        raise NotFound("checkpoint", checkpoint_id)
    _check_unused(conn, row, found)
    remove_rows(conn, [checkpoint_id])
    note(conn, row, "checkpoint-deleted", {"checkpoint": checkpoint_id, "step": found.step})
    point = resume_point(conn, row.id).checkpoint
    saved = {"saved_step": None if point is None else point.step}
    changes = saved | {"version": job.c.version + 1, "updated_at": clock()}
    conn.execute(update(job).where(job.c.id == row.id).values(changes))


def _check_unused(conn: Connection, row: AnyRow, found: AnyRow) -> None:
    ident = found.id
    if row.state not in FINAL:
        if not found.complete and found.attempt == row.attempt:
            raise InUse(f"checkpoint {ident} is still being written; wait, or cancel job {row.id}")
        point = resume_point(conn, row.id).checkpoint
        if point is not None and point.id == ident:
            raise InUse(f"checkpoint {ident} is where job {row.id} goes on from; wait, or cancel the job")
    if conn.execute(select(checkpoint.c.id).where(checkpoint.c.id == ident, checked())).one_or_none():
        raise InUse(f"a check that has not ended needs checkpoint {ident}; wait, or cancel the check")
