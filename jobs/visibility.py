"""Which points and checkpoints of a job's earlier attempts still count.

A later attempt starts again from a checkpoint, at its from_step. What an earlier attempt recorded beyond that step
was trained again, so it no longer counts. Attempt k's **cut** is the smallest from_step of all later attempts;
a point or checkpoint counts (is visible) if its step is at most its attempt's cut. A job that is to start over
(`job.restart`) has no line of history yet: every cut is 0. Used by the metric store, by queries, by claim and retry.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Subquery, case, func, literal, select

from jobs.tables import attempt, job

NO_CUT = 2**63 - 1


def cuts(job_id: UUID | ColumnElement[UUID]) -> Subquery:
    """The job's attempts as rows (number, cut); the cut of the last attempt is NO_CUT. To be joined on number."""
    later = func.min(attempt.c.from_step).over(order_by=attempt.c.number.desc(), rows=(None, -1))
    line = func.coalesce(later, literal(NO_CUT, BigInteger))
    cut = case((job.c.restart, literal(0, BigInteger)), else_=line).label("cut")
    rows = select(attempt.c.number, cut).join(job, job.c.id == attempt.c.job_id)
    return rows.where(attempt.c.job_id == job_id).subquery("cuts")


def ancestry(job_id: UUID, number: int) -> Subquery:
    """The attempts on which attempt `number` stands, itself included, as rows (number, from_step, fingerprint, cut):
    the line of history as it was when that attempt ran, whatever came later.
    """
    later = func.min(attempt.c.from_step).over(order_by=attempt.c.number.desc(), rows=(None, -1))
    cut = func.coalesce(later, literal(NO_CUT, BigInteger)).label("cut")
    columns = (attempt.c.number, attempt.c.from_step, attempt.c.fingerprint, cut)
    return select(*columns).where(attempt.c.job_id == job_id, attempt.c.number <= number).subquery("ancestry")
