"""What a command loads: each of these modules costs every call tens of milliseconds of CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import httpcore2
import pytest
import typer
from typer.main import get_group

from tests.traind.commands import environment
from tests.traind.scripted import Step, answer, scripted
from traind.cli.app import HOMES
from traind.client.http import Http

PROBE = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from traind.cli import main
main()
"""
HEAVY = {
    "rich",
    "yaml",
    "torch",
    "sqlalchemy",
    "fastapi",
    "traind.spec",
    "traind.client.answers",
    "traind.client.client",
}
JOB = {
    "id": "0199b3c4-1111-7222-8333-444455556666",
    "state": "queued",
    "spec": {},
    "created_at": "2026-11-22T12:00:00Z",
}


def loaded_by(*arguments: str, step: Step | None = None) -> set[str]:
    """The modules that a command has loaded when it has done its work."""
    with scripted(step or answer({})) as service:
        env = environment(TRAIND_URL=service.url, TRAIND_API_KEY="td_x")
        command = [sys.executable, "-c", PROBE, *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--version"], HEAVY | {"pydantic", "httpx2"}),
        (["--help"], HEAVY - {"rich"} | {"pydantic", "httpx2"}),
        (["ls"], HEAVY),
        (["ls", "-o", "json"], HEAVY),
        (["submit", "--dataset", "digits", "--model", "mlp", "--optimizer", "adam", "--lr", "1e-3"], HEAVY),
    ],
    ids=["--version", "--help", "ls", "ls -o json", "submit"],
)
def test_a_short_command_loads_only_what_it_needs(arguments: list[str], unwanted: set[str]) -> None:
    page = {"jobs": [JOB], "next_cursor": None}
    loaded = loaded_by(*arguments, step=answer(JOB | page))
    assert "traind.cli.app" in loaded
    assert loaded & unwanted == set()


@pytest.mark.parametrize(
    ("url", "read"), [("http://127.0.0.1:1", False), ("https://127.0.0.1:1", True), ("http://traind.test", True)]
)
def test_certificates_are_read_where_there_can_be_tls(monkeypatch: pytest.MonkeyPatch, url: str, read: bool) -> None:
    asked: list[bool] = []
    real = httpcore2.default_ssl_context
    monkeypatch.setattr("httpcore2.default_ssl_context", lambda **kw: asked.append(True) or real(**kw))
    Http(url, "td_x").close()
    assert bool(asked) is read


@pytest.mark.parametrize("home", HOMES)
def test_each_command_is_found_in_its_module(home: str) -> None:
    app = typer.Typer()
    import_module(f"traind.cli.{home}").register(app)
    app.callback()(lambda: None)
    assert tuple(get_group(app).commands) == HOMES[home]


def test_a_spec_is_judged_by_the_service_and_here_only_if_there_is_none() -> None:
    problem = {"code": "invalid-spec", "detail": "no", "errors": [{"pointer": "/optimizer/lr", "message": "its word"}]}
    with scripted(answer(problem, 422)) as service:
        env = environment(TRAIND_URL=service.url, TRAIND_API_KEY="td_x")
        command = [sys.executable, "-m", "traind", "submit", "--lr", "-1"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, len(service.seen)) == (2, 1)
    assert "--lr (/optimizer/lr): its word" in done.stderr
    assert json.loads(service.seen[0].body)["optimizer"] == {"lr": -1.0}
