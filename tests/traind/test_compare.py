"""`traind compare`: groups over seeds, and their statistics."""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest

from tests.traind.commands import Here
from tests.traind.conftest import SPEC
from tests.traind.scripted import answer, scripted
from tests.traind.test_cli_ls import ADAM, SGD, job, metrics
from traind.cli.compare import Spread, grouped
from traind.client import Client


def seeded(
    i: int, seed: int, optimizer: dict[str, Any], last: float | None, best: float, **values: Any
) -> dict[str, Any]:
    one = job(i, optimizer, **metrics(last, best), **values)
    one["spec"] |= {"training": {"seed": seed, "epochs": 3}, "name": f"run {i}", "labels": {"run": str(i)}}
    return one


JOBS = [
    seeded(0, 0, SGD, 0.5, 0.6),
    seeded(1, 1, SGD, 0.7, 0.9),
    seeded(2, 2, SGD, None, 0.99, state="diverged"),
    seeded(3, 3, SGD, 0.1, 0.1, state="paused"),
    seeded(4, 0, SGD | {"momentum": 0.9}, 0.95, 0.95),
    seeded(5, 0, ADAM, 0.2, 0.2, state="failed"),
    seeded(6, 1, ADAM, 0.2, 0.2, state="cancelled"),
]


def test_a_spread_is_the_sample_s() -> None:
    values = [0.1, 0.4, 0.4, 0.9]
    found = Spread.of([*values, None, float("inf"), float("nan")])
    assert found == Spread(4, statistics.fmean(values), statistics.stdev(values), 0.1, 0.9)
    assert found is not None
    assert found.std == pytest.approx(0.33166, abs=1e-5), "ddof 1; the population's would be 0.287"
    assert Spread.of([2.0]) == Spread(1, 2.0, None, 2.0, 2.0)
    assert Spread.of([None]) is Spread.of([]) is None


def test_jobs_that_differ_only_in_seed_name_and_labels_are_one_group() -> None:
    first, second, third = grouped(JOBS, "val/accuracy")
    assert [one["id"][-1] for one in second.jobs] == ["0", "1", "2", "3"]
    assert second.best == Spread.of([0.6, 0.9]), "only those that succeeded"
    assert second.last == Spread.of([0.5, 0.7])
    assert second.states == {"succeeded": 2, "diverged": 1, "running": 1}
    assert (first.best, first.settings["optimizer.momentum"]) == (Spread.of([0.95]), "0.9")
    assert (third.best, third.last, third.states) == (None, None, {"failed": 1, "cancelled": 1})
    assert "training.seed" not in first.settings


def test_the_lowest_loss_comes_first() -> None:
    jobs = json.loads(json.dumps(JOBS).replace("val/accuracy", "val/loss"))
    assert [group.jobs[0]["id"][-1] for group in grouped(jobs, "val/loss")] == ["0", "4", "5"]


def compared(here: Here, jobs: Any, *options: str) -> Any:
    with scripted(answer({"jobs": jobs, "next_cursor": None})) as service:
        return here("compare", *options, env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})


def test_the_table_has_a_row_for_each_group_and_says_what_it_counts(here: Here) -> None:
    done = compared(here, [*JOBS, JOBS[0]])
    header, *rows = done.stdout.splitlines()
    assert header.split()[:5] == ["optimizer", "lr", "momentum", "n", "best"]
    assert [row.split()[:4] for row in rows[:2]] == [["sgd", "0.1", "0.9", "1"], ["sgd", "0.1", "0", "3"]]
    assert rows[2].split() == ["adam", "0.001", "0", "1", "1"], "failed and cancelled, without values"
    assert "std is the sample's (n - 1)" in done.stderr
    assert "1 jobs repeat a seed" in done.stderr
    assert compared(here, []).returncode == 0


def test_a_metric_that_no_job_has_is_said(here: Here) -> None:
    assert "none of these jobs has val/acc; they have val/accuracy" in compared(here, JOBS, "--by", "val/acc").stderr
    assert "none of these jobs" not in compared(here, JOBS, "--by", "val/accuracy").stderr


def test_json_has_the_groups_with_their_jobs(here: Here) -> None:
    first, second, third = json.loads(compared(here, JOBS, "-o", "json").stdout)
    assert first["best"] == {"n": 1, "mean": 0.95, "std": None, "min": 0.95, "max": 0.95}
    assert second["seeds"] == [0, 1, 2, 3]
    assert (second["states"], len(second["jobs"])) == ({"succeeded": 2, "diverged": 1, "running": 1}, 4)
    assert (third["best"], third["metric"]) == (None, "val/accuracy")


def test_more_jobs_than_are_compared_are_said(here: Here) -> None:
    jobs = [seeded(i % 10, i, SGD, 0.5, 0.5) for i in range(1_001)]
    assert "compared are the newest 1,000" in compared(here, jobs).stderr
    assert json.loads(compared(here, jobs, "--all", "-o", "json").stdout)[0]["best"]["n"] == 1_001


@pytest.mark.parametrize("entry", [1, {}, job() | {"spec": None}, job() | {"metrics": {"best": {"val/accuracy": 1}}}])
def test_an_answer_that_is_no_list_of_jobs_is_an_error(here: Here, entry: Any) -> None:
    done = compared(here, [entry])
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a list of jobs" in done.stderr


def test_real_jobs_over_seeds(here: Here, env: dict[str, str], client: Client) -> None:
    jobs = []
    for lr in (0.1, 1e18):
        for seed in (0, 1):
            spec = SPEC | {"labels": {"sweep": "compare"}, "optimizer": {"name": "sgd", "lr": lr}}
            jobs.append(client.submit(spec | {"training": {"steps": 20, "seed": seed, "threads": 1}}).id)
    ended = client.wait_all(jobs, timeout_seconds=90)
    assert [each.id for each in ended] == jobs
    done = here("compare", "--label", "sweep=compare", "--by", "val/accuracy", "-o", "json", env=env)
    good, bad = json.loads(done.stdout)
    values = [each.metrics.best["val/accuracy"].value for each in ended[:2]]
    assert good["best"] == {
        "n": 2,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values),
        "min": min(values),
        "max": max(values),
    }
    assert (bad["states"], bad["best"]) == ({"diverged": 2}, None)
