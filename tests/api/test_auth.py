"""API keys: required everywhere but health, with scopes, for one project only."""

from __future__ import annotations

import re

import httpx2
import pytest
from sqlalchemy import select

from api.app import create_app
from api.key_cache import MAX_KEYS, TTL_SECONDS, KeyCache
from jobs import keys, tables
from jobs.keys import Principal
from jobs.settings import Settings
from jobs.states import VERBS
from tests.api.project import Project

NO_JOB = "00000000-0000-0000-0000-000000000000"


def operations() -> list[tuple[str, str]]:
    """Every documented operation under /v1, with ids that exist nowhere."""
    settings = Settings(database_url="postgresql://nowhere/", redis_url="redis://nowhere/")  # type: ignore[arg-type]
    paths = create_app(settings).openapi()["paths"]
    idents = {"{job_id}": NO_JOB, "{check_id}": NO_JOB, "{checkpoint_id}": "1"}
    filled = {path: re.sub(r"\{\w+\}", lambda found: idents[found[0]], path) for path in paths}
    return [(method, filled[path]) for path in paths if path.startswith("/v1") for method in paths[path]]


@pytest.mark.parametrize(("method", "path"), operations())
def test_every_operation_needs_a_key(anonymous: httpx2.Client, method: str, path: str) -> None:
    answer = anonymous.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="traind"'
    if method != "head":
        assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize(("method", "path"), operations())
def test_every_operation_needs_a_scope(project: Project, anonymous: httpx2.Client, method: str, path: str) -> None:
    reads = method in ("get", "head")
    answer = anonymous.request(method, path, headers={"Authorization": f"Bearer {project.key('read')}"})
    assert (answer.status_code == 403) != reads
    if not reads:
        assert answer.json()["code"] == "insufficient-scope"


@pytest.mark.parametrize(
    "header",
    [
        "Bearer td_000000000000000000000000000000000000",
        "Bearer nonsense",
        "Bearer td_",
        "Bearer é",
        "Bearer " + "x" * 10_000,
    ],
)
def test_a_wrong_key_is_refused(anonymous: httpx2.Client, header: str) -> None:
    answer = anonymous.get("/v1/jobs", headers=[(b"Authorization", header.encode())])
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid-key")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert "td_0" not in answer.text


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer,", "td_x", ""])
def test_another_kind_of_credentials_is_no_key(anonymous: httpx2.Client, header: str) -> None:
    answer = anonymous.get("/v1/jobs", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_key_that_may_write_may_read_what_it_wrote(project: Project, anonymous: httpx2.Client) -> None:
    headers = {"Authorization": f"Bearer {project.key('write')}"}
    job = anonymous.post("/v1/jobs", json=project.spec(), headers=headers).json()
    answer = anonymous.get(job["links"]["self"], headers=headers)
    assert (answer.status_code, answer.json().get("id")) == (200, job["id"])


def test_an_admin_may_read_and_write(project: Project, anonymous: httpx2.Client) -> None:
    headers = {"Authorization": f"bearer {project.key('admin')}"}
    assert anonymous.post("/v1/jobs", json=project.spec(), headers=headers).status_code == 202
    assert len(anonymous.get("/v1/jobs", headers=headers).json()["jobs"]) == 1


def test_nothing_of_another_project_exists(project: Project, other: Project) -> None:
    job = project.submit()
    checkpoint = project.checkpoint(project.start(), step=1)
    check = project.http.post(f"/v1/checkpoints/{checkpoint}/verify").json()
    asks = [path for name, path in job["links"].items() if name in VERBS or name == "audit"]
    asks += [f"/v1/checkpoints/{checkpoint}/verify", check["links"]["cancel"]]
    paths = [path for path in job["links"].values() if path not in asks]
    paths += [f"/v1/checkpoints/{checkpoint}", f"/v1/checkpoints/{checkpoint}/content", check["links"]["self"]]
    assert {project.http.get(path).status_code for path in paths} == {200}
    for path in paths:
        assert other.http.get(path).status_code == 404, path
    for path in asks:
        assert other.http.post(path).status_code == 404, path
    for path in (job["links"]["self"], f"/v1/checkpoints/{checkpoint}"):
        answers = other.http.delete(path), project.http.get(path)
        assert [answer.status_code for answer in answers] == [404, 200], path
    assert other.http.get("/v1/jobs").json()["jobs"] == []
    assert project.http.get(job["links"]["self"]).json()["state"] == "running"


def test_a_revoked_key_is_refused_when_the_cache_forgets_it(project: Project, anonymous: httpx2.Client) -> None:
    key = project.key("read")
    with project.engine.begin() as conn:
        key_id = conn.execute(select(tables.api_key.c.id).order_by(tables.api_key.c.id.desc()).limit(1)).scalar_one()
        keys.revoke(conn, project.id, key_id)
    answer = anonymous.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid-key")


def test_the_cache_forgets_in_time_and_stays_small() -> None:
    now = 0.0
    cache = KeyCache(clock=lambda: now)
    principal = Principal(1, "k", 1, frozenset({"read"}))
    cache.put("a", principal)
    assert cache.get("a") == principal
    assert cache.get("b") is None
    now = TTL_SECONDS
    assert cache.get("a") is None
    for number in range(3 * MAX_KEYS):
        cache.put(str(number), principal)
    assert len(cache) <= MAX_KEYS
