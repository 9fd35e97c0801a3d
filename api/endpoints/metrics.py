"""Metric curves of a job, downsampled so that no spike and no NaN is lost."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Reader
from api.errors import InvalidParameter, MetricNotFound
from api.openapi import problems
from api.schemas import Buckets, Metrics, NonFinite, Series
from api.service import ServiceDep
from api.views import non_finite
from jobs import queries
from jobs.metrics import store
from jobs.metrics.codec import LARGEST
from jobs.metrics.curves import Curve, curves

router = APIRouter(prefix="/v1/jobs", tags=["metrics"])

INTEGERS = ("step0", "step1", "count", "nan_count")
FLOATS = ("first", "last", "min", "max", "mean")


class MetricFilter(BaseModel):
    """Query of the curves."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z0-9_./-]{1,200}$")]],
        Field(max_length=100, description="Metrics to return; all if none is given", examples=[["train/loss"]]),
    ] = []
    step_from: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    step_to: Annotated[int | None, Field(ge=0, le=LARGEST, description="Last step, inclusive; by default the end")] = (
        None
    )
    max_points: Annotated[int, Field(ge=1, le=10_000, description="Maximum number of buckets per series")] = 1_000
    attempts: Annotated[
        Literal["visible", "all"],
        Field(description="`visible` omits points of steps that were repeated later; `all` gives a series per attempt"),
    ] = "visible"


@router.get(
    "/{job_id}/metrics",
    operation_id="get_job_metrics",
    summary="Metric curves of a job",
    responses=problems("not-found", "metric-not-found", "invalid-parameter"),
)
def get_job_metrics(
    caller: Reader, service: ServiceDep, job_id: UUID, query: Annotated[MetricFilter, Query()]
) -> Metrics:
    """Each bucket has the first, last, smallest, largest and mean value, and the number of its points and NaNs."""
    if query.step_to is not None and query.step_to < query.step_from:
        raise InvalidParameter.named("step_to", "must not be less than step_from")
    with service.engine.begin() as connection:
        queries.get_job(connection, caller.project_id, job_id)
        known = store.names(connection, job_id)
        keys = list(dict.fromkeys(query.key)) or known
        _require(keys, known)
        series = [
            _view(key, curve)
            for key in keys
            for curve in curves(
                connection,
                job_id,
                key,
                max_points=query.max_points,
                step_from=query.step_from,
                step_to=LARGEST if query.step_to is None else query.step_to,
                attempts=query.attempts,
            )
        ]
    return Metrics(
        job_id=job_id, step_from=query.step_from, step_to=query.step_to, attempts=query.attempts, series=series
    )


def _require(keys: list[str], known: list[str]) -> None:
    missing = [key for key in keys if key not in known]
    if missing:
        there = ", ".join(known[:20]) or "nothing yet"
        raise MetricNotFound(
            f"the job has not recorded {', '.join(missing[:20])}; it has {there}", members={"known": known}
        )


def _view(key: str, curve: Curve) -> Series:
    columns: dict[str, Any] = {name: getattr(curve.buckets, name).tolist() for name in INTEGERS}
    nonfinite: list[tuple[str, int, NonFinite]] = []
    for name in FLOATS:
        array = getattr(curve.buckets, name)
        columns[name] = array.tolist()
        for index in np.flatnonzero(~np.isfinite(array)).tolist():
            nonfinite.append((name, index, non_finite(columns[name][index])))
    count = sum(columns["count"])
    return Series(key=key, attempt=curve.attempt, count=count, buckets=Buckets(**columns), nonfinite=nonfinite)
