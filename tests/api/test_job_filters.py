"""Filters of the list by id, name, time and metric: what they find, and what is refused with the parameter's name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.project import Project
from tests.api.test_jobs import NAN, progress

pytestmark = pytest.mark.servers

HOSTILE = {
    "id": ["", "abc", "ghij", "----", "0" * 37, "0" * 33, "'; DROP", "%", "____", "\u0660" * 4, "a\0bc", "12 34"],
    "name": ["", "\0", "a\nb", "\x7f", "x" * 201],
    "created_after": [
        "",
        "now",
        "2026-11-22",
        "2026-11-22T12:00:00",
        "2026-11-22T12:00:00 02:00",
        "1e400",
        "0.5",
        "1700000000",
        "9" * 30,
    ],
    "created_before": ["NaN", "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z"],
    "metric": [
        *("", "val/accuracy", "val/accuracy=1", "val/accuracy>", ">1", "a<>1", "a=>1", "a>1>2", "a>0x10", "a>1_0"),
        *("a>nan", "a>inf", "a>1e999", "a>٣", "a\0>1", "a>1;DROP", "best:>1", "a>--1", "a>1e", "x" * 300 + ">1"),
    ],
}


def found(project: Project, **query: Any) -> list[str]:
    answer = project.http.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["jobs"]]


def test_each_filter_finds_what_it_says(project: Project, other: Project) -> None:
    first = project.submit(name="Sweep-1")
    lease = project.start()
    summary = {"last": {"val/accuracy": 0.5, "val/loss": NAN}, "best": {"val/accuracy": {"value": 0.9, "step": 1}}}
    progress(project.engine, lease, 1, **summary)
    second = project.submit(name="other")
    one, two = first["id"], second["id"]
    for digits in (one[-8:], one[-13:].upper(), one[:23], one, one.replace("-", "")):
        assert found(project, id=digits) == [one]
        assert found(other, id=digits) == []
    assert found(project, name="sweep*") == [one]
    assert found(project, name="E") == [two, one]
    assert found(project, name="☃") == []
    assert found(project, created_after=first["created_at"]) == [two]
    assert found(project, created_before=second["created_at"], created_after="0001-01-01T00:00:00Z") == [one]
    assert found(project, created_after="9999-12-31T23:59:59-14:00") == []
    assert found(project, metric="val/accuracy>0.4") == [one]
    assert found(project, metric=["val/accuracy<=5e-1", "best:val/accuracy>.8", "val/accuracy>-1"]) == [one]
    assert found(project, metric=["val/accuracy>0.4", "val/accuracy>0.6"]) == []
    assert found(project, metric="val/loss>0") == found(project, metric="val/loss<0") == []


@pytest.mark.parametrize("parameter", HOSTILE)
def test_what_cannot_be_meant_is_refused_by_name(project: Project, parameter: str) -> None:
    for value in HOSTILE[parameter]:
        answer = project.http.get("/v1/jobs", params={parameter: value})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter"), value
        assert answer.json()["errors"][0]["parameter"].startswith(parameter), value
        assert "Value error" not in answer.text, value


def test_a_refused_parameter_is_told_in_the_words_of_specs(project: Project) -> None:
    def told(query: str, **headers: str) -> str:
        answer = project.http.post(f"/v1/jobs?{query}", json={}, headers=headers or None)
        return str(answer.json()["detail"])

    assert project.http.get("/v1/jobs?limit=x").json()["detail"] == "limit: must be a whole number, not 'x'"
    assert "did you mean succeeded?" in project.http.get("/v1/jobs?state=succeded").json()["detail"]
    assert told("dry_run=maybe") == "dry_run: must be true or false, not 'maybe'"
    key = "idempotency-key: must be 1 to 255 printable ASCII characters, not ''"
    assert told("", **{"Idempotency-Key": ""}) == key


def test_single_filters_are_given_once_and_bounds_are_few(project: Project) -> None:
    for query in ("id=abcd&id=abcd", "name=a&name=b", "created_after=2026-01-01T00:00:00Z&created_after=x"):
        answer = project.http.get(f"/v1/jobs?{query}")
        assert "may be given once only" in answer.json()["detail"]
    assert project.http.get("/v1/jobs", params={"metric": ["a>1"] * 11}).status_code == 422
