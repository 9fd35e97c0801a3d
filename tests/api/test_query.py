"""A query field that is unknown or given twice is refused with its name, on every verb; several states are a set."""

from __future__ import annotations

import pytest

from tests.api.project import Project


@pytest.mark.parametrize("query", ["limit=1&limit=2", "optimizer=a&optimizer=a", "limit=1&LIMIT=2", "=1", "%00=%00"])
def test_a_list_refuses_what_it_does_not_mean(project: Project, query: str) -> None:
    answer = project.http.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter")


@pytest.mark.parametrize("query", ["dryrun=true", "dry-run", "queue=x", "%F0%9F%92%A5=1"])
def test_a_submit_with_a_query_makes_no_job(project: Project, query: str) -> None:
    answer = project.http.post(f"/v1/jobs?{query}", json=project.spec())
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter")
    assert "allowed: dry_run" in answer.json()["detail"]
    assert project.http.get("/v1/jobs").json()["jobs"] == []


def test_every_path_names_the_field_and_the_allowed_ones(project: Project) -> None:
    job = project.submit()
    path = job["links"]["self"]
    for verb, url, allowed in (
        ("GET", f"{path}?x=1", "none is allowed here"),
        ("GET", f"{path}/events?x=1", "allowed: after, limit"),
        ("POST", f"{path}/retry?x=1", "allowed: from"),
        ("POST", f"{path}/cancel?x=1", "none is allowed here"),
        ("GET", "/v1/datasets?x=1", "none is allowed here"),
    ):
        answer = project.http.request(verb, url)
        assert answer.status_code == 422, url
        assert answer.json()["errors"][0]["parameter"] == "x"
        assert allowed in answer.json()["detail"]
    twice = project.http.post(f"{path}/retry?from=start&from=start").json()
    assert twice["errors"][0] == {"parameter": "from", "code": "rule", "message": "may be given once only"}


def test_several_states_are_any_of_them(project: Project) -> None:
    waits, ended, runs = (project.submit()["id"] for _ in range(3))
    project.http.post(f"/v1/jobs/{ended}/cancel")
    project.http.post(f"/v1/jobs/{runs}/pause")
    for states, expected in (("queued", [waits]), ("cancelled", [ended])):
        assert [job["id"] for job in project.http.get(f"/v1/jobs?state={states}").json()["jobs"]] == expected
    both = project.http.get("/v1/jobs?state=queued&state=cancelled").json()["jobs"]
    assert [job["id"] for job in both] == [ended, waits]
    assert project.http.get("/v1/jobs?state=queued&state=nonsense").status_code == 422
