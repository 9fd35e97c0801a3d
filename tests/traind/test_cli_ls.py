"""`traind ls`: what tells jobs apart, filters, order, and ids that can be copied from a narrow terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.traind.commands import Here, environment
from tests.traind.conftest import SPEC
from tests.traind.scripted import answer, scripted
from traind.cli.differences import differing, settings, titles
from traind.cli.errors import Refused
from traind.cli.listing import by_metric
from traind.cli.selection import moment
from traind.client import Client, Job

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False}
ADAM = {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "amsgrad": False}
IDS = [f"01a2266f-eb3a-71c5-9c5f-2d2f10f6d06{i}" for i in range(10)]


def job(i: int = 0, optimizer: dict[str, Any] = SGD, **values: Any) -> dict[str, Any]:
    spec = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": optimizer, "training": {"seed": 0}}
    return {"id": IDS[i], "state": "succeeded", "spec": spec, "created_at": "2026-11-22T12:00:00Z"} | values


def metrics(last: float | None, best: float | None = None) -> dict[str, Any]:
    kept = {} if best is None else {"val/accuracy": {"value": best, "step": 1}}
    return {"metrics": {"last": {"val/accuracy": last}, "best": kept, "nonfinite": {}}}


def listed(here: Here, jobs: list[dict[str, Any]], *arguments: str) -> tuple[list[str], str, list[str]]:
    """The lines of the table, what was said beside it, and the paths that were asked."""
    with scripted(answer({"jobs": jobs, "next_cursor": None})) as service:
        done = here("ls", *arguments, env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr, [seen.path for seen in service.seen]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([SGD, SGD], []),
        ([SGD, SGD | {"momentum": 0.9}], ["momentum"]),
        ([SGD | {"momentum": 0.9}, SGD | {"momentum": 0.9, "nesterov": True}], ["nesterov"]),
        ([ADAM, ADAM | {"amsgrad": True}], ["amsgrad"]),
        ([SGD, ADAM], ["name", "lr"]),
        ([SGD, SGD | {"momentum": 0.9}, ADAM], ["name", "lr", "momentum"]),
        ([SGD, SGD | {"weight_decay": 0.1}], ["weight_decay"]),
        ([ADAM, ADAM | {"betas": [0.8, 0.999]}], ["betas"]),
    ],
)
def test_hyperparameters_that_tell_jobs_apart(rows: list[dict[str, Any]], expected: list[str]) -> None:
    found = differing([settings({"optimizer": row}) for row in rows])
    assert found == [f"optimizer.{name}" for name in expected]


def test_headers_are_short_where_they_stay_distinct() -> None:
    paths = ["optimizer.lr", "optimizer.name", "schedule.name", "schedule.step_size", "a.step_size"]
    assert titles(paths) == ["lr", "optimizer", "schedule", "schedule.step_size", "a.step_size"]


def test_rows_show_what_differs_and_the_last_and_best_value(here: Here) -> None:
    nesterov = SGD | {"momentum": 0.9, "nesterov": True}
    jobs = [job(0, **metrics(0.5, 0.75)), job(1, nesterov, **metrics(None)), job(2, ADAM)]
    header, *rows = listed(here, jobs)[0]
    assert header.split()[5:] == [
        *("optimizer", "lr", "momentum", "nesterov"),
        *("step", "saved", "val/accuracy", "best", "created"),
    ]
    assert [row.split()[4:8] for row in rows[:2]] == [["sgd", "0.1", "0", "false"], ["sgd", "0.1", "0.9", "true"]]
    assert rows[0].split()[-5:-3] == ["0.5", "0.75"]
    assert " nan " in rows[1]


@pytest.mark.parametrize("key", ["val/accuracy", "val/loss"])
def test_the_best_comes_first_and_what_has_no_number_last(key: str) -> None:
    def with_values(i: int, last: float | None, best: float | None) -> dict[str, Any]:
        return json.loads(json.dumps(job(i, **metrics(last, best))).replace("val/accuracy", key))

    jobs = [with_values(0, 0.9, 0.9), with_values(1, None, None), with_values(2, 0.5, 0.95), with_values(3, 0.7, None)]
    order = [one["id"][-1] for one in by_metric([*jobs, job(4)], key)]
    assert order == (["2", "0", "3", "1", "4"] if key == "val/accuracy" else ["3", "0", "2", "1", "4"])


def test_what_was_passed_over_by_a_sort_is_said(here: Here) -> None:
    jobs = [job(i, **metrics(i / 10, i / 10)) for i in range(10)]
    lines, said, _ = listed(here, jobs, "--by", "val/accuracy", "-n", "3")
    assert [line.split()[0] for line in lines[1:]] == [IDS[9], IDS[8], IDS[7]]
    assert said == "the best 3 of 10; -n shows more\n"
    many = [job(i % 10, **metrics(i / 2000, i / 2000)) for i in range(1_001)]
    lines, said, _ = listed(here, many, "--by", "val/accuracy", "-n", "1")
    assert "only the newest 1,000 matching jobs are sorted; --all sorts all of them" in said
    assert lines[1].split()[0] == IDS[9]
    lines, said, _ = listed(here, many, "--by", "val/accuracy", "--all")
    assert (len(lines), said) == (1_002, "")


def test_a_metric_that_no_job_has_is_said(here: Here) -> None:
    _, said, _ = listed(here, [job(0, **metrics(0.5)), job(1)], "--by", "val/acc")
    assert said == "none of these jobs has val/acc; they have val/accuracy\n"
    assert listed(here, [job()], "--by", "val/accuracy")[1] == "", "none has any yet"


def test_filters_are_asked_of_the_service(here: Here) -> None:
    options = ("--name", "sweep-*", "--where", "val/accuracy>0.9", "--where", "best:val/loss<1", "--since", "2h")
    _, _, (path,) = listed(here, [], *options, "--state", "failed", "--state", "diverged")
    for part in ("name=sweep-%2A", "metric=val%2Faccuracy%3E0.9", "metric=best%3Aval%2Floss%3C1", "created_after=2"):
        assert part in path
    assert "state=failed&state=diverged" in path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2026-11-20T01:02:03Z", datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-20T01:02:03+02:00", datetime(2026, 11, 19, 23, 2, 3, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20).astimezone()),
    ],
)
def test_times_are_ago_or_iso(text: str, expected: datetime) -> None:
    assert moment("--since", text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "2", "h", "-2h", "2y", "٢h", "1e3s", "9" * 30 + "w", "tomorrow", "2026-13-01", "now\n"]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="--since"):
        moment("--since", text, NOW)


def test_an_answer_that_is_no_list_of_jobs_is_an_error(here: Here) -> None:
    for entry in (
        1,
        {},
        {"id": IDS[0]},
        job() | {"created_at": 5},
        job() | {"metrics": {"last": 3}},
        job() | {"spec": 1},
    ):
        with scripted(answer({"jobs": [entry], "next_cursor": None})) as service:
            done = here("ls", "--by", "val/loss", env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})
        assert (done.returncode, done.stdout) == (1, "")
        assert "not a list of jobs" in done.stderr


def test_an_ambiguous_id_lists_the_candidates(here: Here) -> None:
    with scripted(answer({"jobs": [job(i, name=f"n{i}") for i in range(3)], "next_cursor": None})) as service:
        done = here("cancel", "2D2F-10f6d0", env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})
    assert (done.returncode, done.stdout, len(service.seen)) == (2, "", 1)
    assert "id=2d2f10f6d0" in service.seen[0].path
    for i in range(3):
        assert f"{IDS[i]}  succeeded  n{i}" in done.stderr


def test_the_filters_with_a_service(here: Here, env: dict[str, str], client: Client, finished: Job) -> None:
    sgd = SPEC | {"name": "Sweep_1", "labels": {"by": "ls"}, "optimizer": {"name": "sgd", "lr": 1e-6}}
    other = client.wait(client.submit(sgd).id, timeout_seconds=60)

    def found(*arguments: str) -> list[str]:
        done = here("ls", "-o", "json", "--all", *arguments, env=env)
        assert done.returncode == 0, done.stderr
        return [each["id"] for each in json.loads(done.stdout)]

    assert found("--name", "sweep_?") == [other.id]
    assert {finished.id, other.id} <= {*found("--since", "1h")}
    assert found("--until", "1h") == []
    assert finished.id in found("--where", "val/accuracy>0.5")
    assert other.id not in found("--where", "val/accuracy>0.5")
    assert other.id in found("--where", "best:val/accuracy<=0.5")
    ranked = found("--by", "val/accuracy")
    assert ranked.index(finished.id) < ranked.index(other.id)
    for hostile in ("val/accuracy", "val/accuracy=1", ">1", "a>nan", "a>1e999", "a>1;DROP", "a>>1"):
        assert here("ls", "--where", hostile, env=env).returncode == 2
    assert [each.id for each in client.list(name="sweep_?", created_before=datetime.now(UTC))] == [other.id]
    assert [each.id for each in client.list(id=other.id[-8:], metric="val/accuracy>-1")] == [other.id]


def test_at_80_columns_a_row_is_one_line_with_an_id_to_copy(env: dict[str, str], finished: Job) -> None:
    for command in (["ls"], ["events", finished.id], ["checkpoints", finished.id], ["workers"]):
        shown = on_a_terminal(command, 80, env)
        assert all(len(line) <= 80 for line in shown), shown
    rows = on_a_terminal(["ls", "--label", "study=first"], 80, env)
    (ident,) = {row.split()[0] for row in rows if row.split()[0] in finished.id}
    assert ident == finished.id[-8:]
    assert finished.id in "".join(on_a_terminal(["ls", "--label", "study=first"], 250, env))


def on_a_terminal(command: list[str], columns: int, env: dict[str, str]) -> list[str]:
    """The lines on standard output, if that is a terminal so wide."""
    master, slave = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "traind", *command],
        env=environment(**env, TERM="xterm", NO_COLOR="1", COLUMNS=str(columns)),
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
        check=True,
    )
    os.close(slave)
    written = b"".join(iter(lambda: _read(master), b""))
    os.close(master)
    assert done.returncode == 0
    return written.decode().splitlines()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux says EIO where the other end is closed
        return b""
