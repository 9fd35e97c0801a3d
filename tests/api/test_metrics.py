"""Metric curves over HTTP: what was recorded comes back, in as many buckets as asked for, NaN and infinities too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import crash, record_metrics
from jobs.metrics.codec import Segment
from tests.api.project import Project
from tests.jobs.scenario import ERROR

Columns = dict[str, list[tuple[int, float]]]


def record(project: Project, lease: Lease, seq: int, columns: Columns) -> None:
    steps = [step for points in columns.values() for step, _ in points]
    arrays = {
        key: ([step for step, _ in points], [float(step) for step, _ in points], [value for _, value in points])
        for key, points in columns.items()
    }
    with project.engine.begin() as conn:
        record_metrics(conn, lease, seq=seq, segment=Segment(min(steps), max(steps), arrays))


def curves(project: Project, job: dict[str, Any], **params: Any) -> dict[str, dict[str, Any]]:
    answer = project.http.get(job["links"]["metrics"], params=params)
    assert answer.status_code == 200, answer.text
    return {series["key"]: series for series in answer.json()["series"]}


def test_points_come_back_as_they_were_recorded(project: Project) -> None:
    job, lease = project.submit(), project.start()
    record(project, lease, 0, {"train/loss": [(1, 2.5), (2, 0.1)], "lr": [(1, 1e-3), (2, 1e-3)]})
    record(project, lease, 1, {"train/loss": [(3, 1e-300)], "val/loss": [(3, 7.0)]})
    found = curves(project, job)
    assert list(found) == ["lr", "train/loss", "val/loss"]
    loss = found["train/loss"]
    assert (loss["count"], loss["attempt"], loss["nonfinite"]) == (3, None, [])
    assert loss["buckets"]["step0"] == loss["buckets"]["step1"] == [1, 2, 3]
    for column in ("first", "last", "min", "max", "mean"):
        assert loss["buckets"][column] == [2.5, 0.1, 1e-300]
    assert (loss["buckets"]["count"], loss["buckets"]["nan_count"]) == ([1, 1, 1], [0, 0, 0])


def test_a_range_of_steps_and_some_keys(project: Project) -> None:
    job, lease = project.submit(), project.start()
    record(project, lease, 0, {"a": [(s, float(s)) for s in range(1, 11)], "b": [(1, 0.0)], "c": [(1, 0.0)]})
    found = curves(project, job, key=["b", "a", "b"], step_from=4, step_to=6)
    assert list(found) == ["b", "a"]
    assert found["a"]["buckets"]["first"] == [4.0, 5.0, 6.0]
    assert (found["b"]["count"], found["b"]["buckets"]["first"]) == (0, [])


def test_downsampling_keeps_spikes_and_counts_nans(project: Project) -> None:
    job, lease = project.submit(), project.start()
    values = np.sin(np.arange(5_000) / 100)
    values[[777, 3_210]] = 99.0, -99.0
    values[4_000] = np.nan
    record(project, lease, 0, {"x": [(step, float(value)) for step, value in enumerate(values, 1)]})
    buckets = curves(project, job, max_points=50)["x"]["buckets"]
    assert len(buckets["step0"]) == 50
    assert (buckets["step0"][0], buckets["step1"][-1]) == (1, 5_000)
    assert (max(buckets["max"]), min(buckets["min"])) == (99.0, -99.0)
    assert (sum(buckets["count"]), sum(buckets["nan_count"])) == (5_000, 1)
    assert buckets["step0"][1:] == [step + 1 for step in buckets["step1"][:-1]]


def test_nan_and_infinities_travel_beside_the_numbers(project: Project) -> None:
    job, lease = project.submit(), project.start()
    record(project, lease, 0, {"x": [(1, 1.0), (2, math.nan), (3, math.inf), (4, -math.inf)]})
    series = curves(project, job)["x"]
    assert series["buckets"]["first"] == [1.0, None, None, None]
    expected = [
        [c, i, v] for c in ("first", "last", "min", "max", "mean") for i, v in ((1, "nan"), (2, "inf"), (3, "-inf"))
    ]
    assert series["nonfinite"] == expected
    assert series["buckets"]["nan_count"] == [0, 1, 0, 0]
    one = curves(project, job, max_points=1)["x"]
    assert (one["buckets"]["first"], one["buckets"]["min"], one["buckets"]["max"]) == ([1.0], [None], [None])
    assert ["min", 0, "-inf"] in one["nonfinite"]
    assert ["max", 0, "inf"] in one["nonfinite"]


def test_what_was_trained_again_is_shown_only_on_request(project: Project) -> None:
    job, lease = project.submit(), project.start()
    record(project, lease, 0, {"x": [(1, 1.0), (2, 2.0), (3, 3.0)]})
    project.checkpoint(lease, step=2)
    with project.engine.begin() as conn:
        crash(conn, lease, error=ERROR, log=None)
    record(project, project.start(), 0, {"x": [(3, 30.0), (4, 40.0)]})
    assert curves(project, job)["x"]["buckets"]["first"] == [1.0, 2.0, 30.0, 40.0]
    answer = project.http.get(job["links"]["metrics"], params={"attempts": "all"}).json()
    assert [(s["attempt"], s["buckets"]["first"]) for s in answer["series"]] == [
        (1, [1.0, 2.0, 3.0]),
        (2, [30.0, 40.0]),
    ]


def test_a_job_without_metrics_has_no_curves(project: Project) -> None:
    job = project.submit()
    assert project.http.get(job["links"]["metrics"]).json() == {
        "job_id": job["id"],
        "step_from": 0,
        "step_to": None,
        "attempts": "visible",
        "series": [],
    }


@pytest.mark.parametrize("recorded", [True, False])
def test_an_unknown_key_is_answered_with_the_known_ones(project: Project, recorded: bool) -> None:
    job, lease = project.submit(), project.start()
    if recorded:
        record(project, lease, 0, {"train/loss": [(1, 1.0)]})
    answer = project.http.get(job["links"]["metrics"], params={"key": ["train/loss", "train/los"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "metric-not-found")
    assert answer.json()["known"] == (["train/loss"] if recorded else [])
    assert "train/los" in answer.json()["detail"]
