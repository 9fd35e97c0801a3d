"""Metric curves of a job, downsampled so that no spike and no NaN is lost."""

from __future__ import annotations

from collections.abc import Iterator
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
from jobs.metrics import buckets, store
from jobs.metrics.codec import LARGEST

router = APIRouter(prefix="/v1/jobs", tags=["metrics"])

INTEGERS = ("step0", "step1", "count", "nan_count")
FLOATS = ("first", "last", "min", "max", "mean")


class MetricFilter(BaseModel):
    """Query of the curves."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z0-9_./-]{1,200}$")]],
        Field(max_length=100, description="Which metrics; all where none is given", examples=[["train/loss"]]),
    ] = []
    step_from: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    step_to: Annotated[int | None, Field(ge=0, le=LARGEST, description="This step included; to the end by default")] = (
        None
    )
    max_points: Annotated[int, Field(ge=1, le=10_000, description="At most so many buckets per series")] = 1_000
    attempts: Annotated[
        Literal["visible", "all"],
        Field(description="`visible` leaves out what a later attempt trained again; `all` gives a series per attempt"),
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
    """Per bucket the first, last, smallest, largest and mean value, and how many points and NaNs stand behind it."""
    if query.step_to is not None and query.step_to < query.step_from:
        raise InvalidParameter.named("step_to", "must not be less than step_from")
    with service.engine.begin() as connection:
        queries.get_job(connection, caller.project_id, job_id)
        known = store.names(connection, job_id)
        keys = list(dict.fromkeys(query.key)) or known
        _require(keys, known)
        found = store.read(
            connection,
            job_id,
            keys,
            step_from=query.step_from,
            step_to=LARGEST if query.step_to is None else query.step_to,
            attempts=query.attempts,
        )
    return Metrics(
        job_id=job_id,
        step_from=query.step_from,
        step_to=query.step_to,
        attempts=query.attempts,
        series=[series for key in keys for series in _series(key, found[key], query)],
    )


def _require(keys: list[str], known: list[str]) -> None:
    missing = [key for key in keys if key not in known]
    if missing:
        there = ", ".join(known[:20]) or "nothing yet"
        raise MetricNotFound(
            f"the job has not recorded {', '.join(missing[:20])}; it has {there}", members={"known": known}
        )


def _series(key: str, points: store.Series, query: MetricFilter) -> Iterator[Series]:
    if query.attempts == "visible":
        yield _downsampled(key, None, points.steps, points.values, query.max_points)
        return
    for attempt in np.unique(points.attempts):
        own = points.attempts == attempt
        yield _downsampled(key, int(attempt), points.steps[own], points.values[own], query.max_points)


def _downsampled(key: str, attempt: int | None, steps: Any, values: Any, max_points: int) -> Series:
    found = buckets.downsample(steps, values, max_points)
    columns: dict[str, Any] = {name: getattr(found, name).tolist() for name in INTEGERS}
    nonfinite: list[tuple[str, int, NonFinite]] = []
    for name in FLOATS:
        array = getattr(found, name)
        columns[name] = array.tolist()
        for index in np.flatnonzero(~np.isfinite(array)).tolist():
            nonfinite.append((name, index, non_finite(columns[name][index])))
            columns[name][index] = None
    return Series(key=key, attempt=attempt, count=len(values), buckets=Buckets(**columns), nonfinite=nonfinite)
