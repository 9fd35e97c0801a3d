"""The command line where there is no service: help, usage, specs that cannot run, and what to do about it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.traind.commands import Here, environment, traind
from tests.traind.scripted import answer, scripted
from traind.service import ServiceInfo, write

GOOD = "dataset: {name: digits}\nmodel: {name: mlp}\noptimizer: {name: adam, lr: 1e-3}\n"


def info(folder: Path, url: str = "http://127.0.0.1:1", pid: int | None = None) -> ServiceInfo:
    started_at = "2026-11-22T12:00:00+00:00"
    return ServiceInfo(url=url, api_key="td_x", pid=pid or os.getpid(), started_at=started_at, data_dir=str(folder))


def test_version_is_printed_alone() -> None:
    done = traind("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"traind {version('traind')}\n", "")


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    done = traind("--help")
    assert done.returncode == 0
    for command in (
        "submit",
        "watch",
        "ls",
        "get",
        "cancel",
        "pause",
        "resume",
        "retry",
        "rm",
        "events",
        "metrics",
        "checkpoints",
        "download",
        "workers",
        "verify",
        "audit",
        "checks",
        "datasets",
    ):
        assert f"│ {command} " in done.stdout
    heavy = {"pydantic", "httpx2", "torch", "sqlalchemy", "yaml"}
    probe = f"import sys; from traind.cli.app import build; build(); print(sorted({heavy} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ls", "--nonsense"],
        ["ls", "-o", "xml"],
        ["ls", "-n", "0"],
        ["get"],
        ["submit", "--lr", "fast"],
        ["submit", "--hidden", "a,b"],
        ["submit", "--set", "a"],
        ["submit", "--label", "a"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_nothing_on_stdout(here: Here, arguments: list[str]) -> None:
    done = here(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (GOOD + "colour: red\n", [], ":4 (/colour): a spec has no colour"),
        (GOOD.replace("1e-3", "-1"), [], ":3 (/optimizer/lr): Invalid learning rate: -1.0"),
        (GOOD.replace("1e-3", "fast"), [], ":3 (/optimizer/lr): must be a number, not the string 'fast'"),
        (GOOD, ["--lr", "nan"], "--lr (/optimizer/lr): must be a finite number, not nan"),
        (GOOD, ["--set", "training.log_every=0"], "--set training.log_every (/training/log_every): "),
        (GOOD, ["--momentum", "0.9"], "--momentum (/optimizer/momentum): adam has no momentum (sgd has)"),
        (GOOD, ["--label", "bad key=1"], "--label bad key (/labels/bad key"),
        (GOOD, ["--optimizer", "lion"], "--optimizer (/optimizer"),
        (GOOD, ["--epochs", "0"], "--epochs (/training/epochs): "),
        (GOOD, ["--batch-size", "0"], "--batch-size (/training/batch_size"),
        (GOOD + "name: a\\0b\n", ["--name", "a\x1bb"], "--name (/name): "),
        ("model: {name: mlp\n", [], "job.yaml: line 1, column 8: the bracket that opens here is not closed"),
        (GOOD + "dataset: {name: digits}\n", [], "line 4: the key 'dataset' stands twice"),
        ("name: a\x00b\n", [], "holds NUL"),
        ("x: 1\n" * 100_000, [], "no spec is that large"),
        ("!!python/name:os.system {}\n", [], "tag"),
    ],
)
def test_a_spec_that_cannot_run_is_exit_code_2_with_field_and_place(
    here: Here, tmp_path: Path, content: str, arguments: list[str], expected: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    done = here("submit", file, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff", bytes(1_000), b"\xff\xfen\x00"])
def test_a_binary_file_is_exit_code_2(here: Here, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    for name, stdin in ((str(file), b""), ("-", content)):
        done = here("submit", name, stdin=stdin)
        assert (done.returncode, done.stdout) == (2, "")
        assert "not a text file" in done.stderr


def test_a_missing_file_is_exit_code_2(tmp_path: Path) -> None:
    done = traind("submit", tmp_path / "missing.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "missing.yaml: No such file or directory" in done.stderr


def without_service(tmp_path: Path) -> tuple[dict[str, str], str]:
    return {"TRAIND_DATA_DIR": str(tmp_path)}, "start one with `traind up`"


def stopped(tmp_path: Path) -> tuple[dict[str, str], str]:
    ended = subprocess.Popen(["true"])
    ended.wait()
    write(info(tmp_path, pid=ended.pid))
    return {"TRAIND_DATA_DIR": str(tmp_path)}, "has stopped; start it again with `traind up`"


def damaged(tmp_path: Path) -> tuple[dict[str, str], str]:
    (tmp_path / "service.json").write_text('{"url": 1}')
    return {"TRAIND_DATA_DIR": str(tmp_path)}, "start one with `traind up`"


def url_without_key(_tmp_path: Path) -> tuple[dict[str, str], str]:
    return {"TRAIND_URL": "http://127.0.0.1:1"}, "TRAIND_API_KEY is not"


def bad_url(_tmp_path: Path) -> tuple[dict[str, str], str]:
    return {"TRAIND_URL": "localhost:1", "TRAIND_API_KEY": "td_x"}, "TRAIND_URL and TRAIND_API_KEY: "


def bad_key(_tmp_path: Path) -> tuple[dict[str, str], str]:
    return {"TRAIND_URL": "http://127.0.0.1:1", "TRAIND_API_KEY": "td_\nx"}, "the API key"


def nobody_there(_tmp_path: Path) -> tuple[dict[str, str], str]:
    return {"TRAIND_URL": "http://127.0.0.1:1", "TRAIND_API_KEY": "td_x"}, "cannot be reached"


@pytest.mark.parametrize(
    "place",
    [without_service, stopped, damaged, url_without_key, bad_url, bad_key, nobody_there],
    ids=lambda f: f.__name__,
)
def test_without_a_service_the_error_says_what_to_do(here: Here, tmp_path: Path, place: Any) -> None:
    env, expected = place(tmp_path)
    done = here("ls", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_dir_on_the_command_line_wins_over_the_environment(here: Here, tmp_path: Path) -> None:
    empty = answer({"jobs": [], "next_cursor": None})
    with scripted(empty) as meant, scripted(empty) as other:
        write(info(tmp_path, url=meant.url))
        env = {"TRAIND_URL": other.url, "TRAIND_API_KEY": "td_x"}
        assert here("ls", "--data-dir", tmp_path, env=env).returncode == 0
        assert (len(meant.seen), len(other.seen)) == (1, 0)


def test_a_key_that_is_no_good_is_that_of_the_file_it_came_from(here: Here, tmp_path: Path) -> None:
    refusal = {"code": "invalid-key", "detail": "the API key is unknown, mistyped or revoked"}
    env = {"TRAIND_DATA_DIR": str(tmp_path)}
    with scripted(answer(refusal, 401)) as service:
        write(info(tmp_path, url=service.url))
        refused = here("ls", env=env).stderr
    write(replace(info(tmp_path), api_key="td_\nx"))
    for said in (refused, here("ls", env=env).stderr):
        assert str(tmp_path / "service.json") in said
        assert "TRAIND_API_KEY" not in said


def test_a_lost_answer_tells_how_to_submit_safely_again(here: Here) -> None:
    with scripted(lambda handler: setattr(handler, "close_connection", True)) as service:
        env = {"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"}
        done = here("submit", "-", "--idempotency-key", "mine", env=env, stdin=GOOD.encode())
    assert (done.returncode, done.stdout) == (1, "")
    assert "--idempotency-key mine makes a second try safe" in done.stderr
    assert {seen.headers["idempotency-key"] for seen in service.seen} == {"mine"}


def test_what_the_service_says_cannot_steer_the_terminal(here: Here) -> None:
    text = "\x1b[2J\x9b31m\u202eevil"
    job = {"id": "0199b3c4-1111-7222-8333-444455556666", "name": text, "state": "queued", "spec": {}}
    job |= {"created_at": "2026-11-22T12:00:00Z"}
    with scripted(answer({"jobs": [job], "next_cursor": None})) as service:
        done = here("ls", env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})
    assert done.returncode == 0
    assert "evil" in done.stdout
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.stdout)


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    with scripted(
        answer({"datasets": [{"name": f"d{i}", "description": "x" * 1_000} for i in range(1_000)]})
    ) as service:
        env = environment(TRAIND_URL=service.url, TRAIND_API_KEY="td_x")
        process = subprocess.Popen(
            [sys.executable, "-m", "traind", "datasets"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()
        process.wait()
