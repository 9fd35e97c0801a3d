"""The command line with a whole service behind it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from local.supervisor import Service
from tests.traind.commands import Here, environment, traind
from tests.traind.conftest import SPEC
from traind.client import Client, Job

FLAGS = ("--dataset", "digits", "--model", "mlp", "--hidden", "16", "--set", "training.threads=1")
QUICK = (*FLAGS, "--optimizer", "adam", "--lr", "5e-3", "--steps", "20")
ENDLESS = (*FLAGS, "--optimizer", "sgd", "--epochs", "1000000")
ID_LENGTH = 36


@contextmanager
def watching(job_id: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`traind watch` in a process of its own, once it has said something; ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "traind", "watch", job_id, "-o", "json"],
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stderr is not None
            process.stderr.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def endless(client: Client, here: Here, env: dict[str, str]) -> Iterator[str]:
    """A job that goes on until somebody cancels it; cancelled afterwards."""
    submitted = here("submit", *ENDLESS, env=env)
    job_id = submitted.stdout.strip()
    yield job_id
    if not client.get(job_id).final:
        client.cancel(job_id)
        client.wait(job_id, timeout_seconds=30)


def test_submit_by_flags_prints_only_the_id(here: Here, env: dict[str, str], client: Client) -> None:
    done = here("submit", *QUICK, "--label", "by=flags", "--name", "quick", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    job = client.get(done.stdout.strip())
    assert len(done.stdout.strip()) == ID_LENGTH
    assert (job.name, job.labels) == ("quick", {"by": "flags"})
    assert (job.spec["optimizer"]["lr"], job.spec["training"]["steps"]) == (0.005, 20)


@pytest.mark.parametrize("form", ["yaml", "json", "stdin"])
def test_submit_a_file_with_a_flag_over_it(
    here: Here, env: dict[str, str], client: Client, tmp_path: Path, form: str
) -> None:
    text = "dataset: {name: digits}\nmodel: {name: mlp, hidden: [16]}\noptimizer: {name: sgd, lr: 1e-3}\n"
    if form == "json":
        text = json.dumps({"dataset": {"name": "digits"}, "model": {"name": "linear"}, "optimizer": {"name": "sgd"}})
    file = tmp_path / f"job.{form}"
    file.write_text(text)
    name = "-" if form == "stdin" else file
    done = here("submit", name, "--lr", "0.25", "--steps", "5", "-o", "json", env=env, stdin=text.encode())
    assert done.returncode == 0
    submitted = json.loads(done.stdout)
    assert client.get(submitted["id"]).spec["optimizer"]["lr"] == 0.25
    assert submitted["state"] == "queued"


def test_the_same_idempotency_key_is_the_same_job(here: Here, env: dict[str, str]) -> None:
    first, second = (here("submit", *QUICK, "--idempotency-key", "once", env=env) for _ in range(2))
    other = here("submit", *QUICK, "--seed", "9", "--idempotency-key", "once", env=env)
    assert first.stdout == second.stdout
    assert (other.returncode, other.stdout) == (2, "")
    assert "Idempotency-Key" in other.stderr or "idempotency key" in other.stderr


def test_submit_and_watch_a_success(env: dict[str, str]) -> None:
    done = traind("submit", *QUICK, "--watch", env=environment(**env))
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split()[:3] == ["id", "name", "state"]
    assert "succeeded" in row
    assert "20/20" in row
    assert row.split()[0] in done.stderr
    assert "succeeded  step 20/20  loss " in done.stderr


def test_a_dry_run_shows_what_the_service_makes_of_a_spec(here: Here, env: dict[str, str], client: Client) -> None:
    known = {job.id for job in client.list()}
    done = here("submit", *QUICK, "--dry-run", env=env)
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, "")
    assert "lr=0.005" in rows["optimizer"]
    assert {"n_parameters=1210", "total_steps=20"} <= set(rows["resolved"].split())
    assert rows["layers"].startswith("Flatten()  Linear(in_features=64")
    document = json.loads(here("submit", *QUICK, "--dry-run", "-o", "json", env=env).stdout)
    tried = client.validate(document["spec"])
    assert tried.document() == document
    waits = here("submit", *QUICK, "--queue", "nobody", "--dry-run", env=env)
    assert waits.stderr == "it would wait: no live worker listens to the queue nobody\n"
    bad = here("submit", *QUICK, "--momentum", "0.9", "--dry-run", env=env)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "momentum" in bad.stderr
    assert "--watch: with --dry-run no job" in here("submit", *QUICK, "--dry-run", "--watch", env=env).stderr
    assert {job.id for job in client.list()} == known


def test_an_early_stop_is_said_everywhere(here: Here, env: dict[str, str], client: Client) -> None:
    rule = ("training.eval_every=5", "training.early_stopping.patience=2", "training.early_stopping.min_delta=1e9")
    options = [part for field in rule for part in ("--set", field)]
    done = here("submit", *FLAGS, "--optimizer", "sgd", "--steps", "500", *options, "--watch", env=env)
    reason = "at step 15 of 500: val/loss did not improve by more than 1e+09 in 2 evaluations"
    assert done.returncode == 0
    assert f"stopped early {reason}\n" in done.stderr
    assert "succeeded (stopped early)" in done.stderr, "on the board, too"
    assert "succeeded (stopped early)" in done.stdout
    job = next(client.list())
    assert (job.state, job.stopped_early) == ("succeeded", True)
    *_, last = client.events(job.id)
    expected = {"step": 15, "metric": "val/loss", "patience": 2, "min_delta": 1e9}
    assert (last.kind, last.data) == ("succeeded", {"stopped_early": expected})
    assert "succeeded (stopped early)" in here("ls", "--limit", "1", env=env).stdout
    assert any(
        line.split(None, 2) == ["stopped", "early", reason] for line in here("get", job.id, env=env).stdout.splitlines()
    )


def test_watch_a_divergence(here: Here, env: dict[str, str]) -> None:
    job_id = here("submit", *FLAGS, "--optimizer", "sgd", "--lr", "1e10", env=env).stdout.strip()
    done = here("watch", job_id, "-o", "json", env=env)
    assert done.returncode == 3
    ended = json.loads(done.stdout)
    assert ended["state"] == "diverged"
    assert f"({ended['error']['code']})" in done.stderr


def test_watch_a_failure_that_says_what_to_do(here: Here, env: dict[str, str]) -> None:
    done = here("submit", *ENDLESS, "--set", "resources.max_runtime_seconds=1", "--watch", env=env)
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "a retry goes on from step" in done.stderr


def test_a_job_whose_data_the_worker_lacks_waits_and_says_so(here: Here, env: dict[str, str]) -> None:
    submitted = here("submit", "--dataset", "fashion_mnist", "--model", "linear", "--optimizer", "sgd", env=env)
    job_id = submitted.stdout.strip()
    shown = here("get", job_id, env=env).stdout
    assert here("cancel", job_id, env=env).returncode == 0
    assert "waits" in shown
    assert "TRAIND_FASHION_MNIST" in shown


def test_watch_a_cancellation(here: Here, env: dict[str, str], endless: str) -> None:
    with watching(endless, env) as watch:
        cancelled = here("cancel", endless, "-o", "json", env=env)
        assert cancelled.returncode == 0
        assert json.loads(cancelled.stdout)[0]["state"] in ("cancelling", "cancelled")
        out, err = watch.communicate(timeout=30)
    assert watch.returncode == 4, err
    assert json.loads(out)["state"] == "cancelled"
    again = here("cancel", endless, env=env)
    assert again.returncode == 0
    assert "cancelled" in again.stdout


def test_interrupting_watch_leaves_the_job_running(env: dict[str, str], endless: str, client: Client) -> None:
    with watching(endless, env) as watch:
        watch.send_signal(signal.SIGINT)
        out, err = watch.communicate(timeout=30)
    assert (watch.returncode, out) == (130, "")
    assert f"the job goes on; `traind watch {endless}`" in err
    assert not client.get(endless).final


def test_cancelling_what_has_ended_says_so(here: Here, env: dict[str, str], finished: Job) -> None:
    done = here("cancel", finished.id, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "succeeded" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--set", 'optimizer.param_groups=[{"params": "nothing.*", "lr": 1}]'), "--set optimizer.param_groups ("),
        (("--model", "cnn", "--dataset", "synthetic_regression"), "(/model"),
    ],
)
def test_what_only_the_service_can_judge_names_the_flag_too(
    here: Here, env: dict[str, str], arguments: tuple[str, ...], expected: str
) -> None:
    done = here("submit", "--dataset", "digits", "--model", "mlp", "--optimizer", "sgd", *arguments, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr


def test_ls_filters_and_counts(here: Here, env: dict[str, str], finished: Job, client: Client) -> None:
    other = client.submit({**SPEC, "labels": {"study": "second", "mine": "x"}, "optimizer": {"name": "sgd"}})
    client.wait(other.id, timeout_seconds=60)

    def listed(*arguments: str) -> list[str]:
        done = here("ls", "-o", "json", *arguments, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return [job["id"] for job in json.loads(done.stdout)]

    assert listed("--label", "study=first") == [finished.id]
    assert {finished.id, other.id} <= set(listed("--label", "study", "--all"))
    assert listed("--label", "mine") == [other.id]
    assert listed("--label", "mine", "--optimizer", "adam") == []
    assert listed("--label", "study", "-n", "1") == [other.id]
    assert listed("--label", "mine", "--state", "queued") == []
    assert len(listed("--all")) >= len(listed("-n", "1")) == 1


def test_ls_as_a_table_is_one_line_a_job_however_narrow(here: Here, env: dict[str, str], finished: Job) -> None:
    done = here("ls", "--label", "study=first", env=env | {"COLUMNS": "20"})
    header, row = done.stdout.splitlines()
    assert row.split()[:6] == [finished.id, "finished", "succeeded", "digits", "mlp", "adam"]
    assert header.split()[-1] == "created"
    assert "\x1b" not in done.stdout


def test_a_job_is_found_by_the_end_or_the_start_of_its_id(here: Here, env: dict[str, str], finished: Job) -> None:
    for text in (finished.id[-8:], finished.id[-12:].upper(), finished.id[:23], finished.id.replace("-", "")):
        shown = here("get", text, env=env)
        assert shown.returncode == 0
        assert finished.id in shown.stdout
    for text, reason in (
        ("067", "is not a job's id"),
        ("zzzz", "is not a job's id"),
        ("ffffffffffffffff", "no job has an id that ends or starts with 'ffffffffffffffff'"),
    ):
        refused = here("get", text, env=env)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert reason in refused.stderr
        assert "`traind ls` lists the jobs" in refused.stderr


def test_an_unknown_job_is_not_found(here: Here, env: dict[str, str]) -> None:
    done = here("get", "00000000-0000-7000-8000-000000000000", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "`traind ls` lists the jobs" in done.stderr


def test_get_shows_the_whole_spec(here: Here, env: dict[str, str], finished: Job) -> None:
    document = json.loads(here("get", finished.id, "-o", "json", env=env).stdout)
    assert document == finished.document()
    shown = here("get", finished.id, env=env).stdout
    assert finished.created_by is not None
    assert f"{finished.created_by.name} (key {finished.created_by.key_id})" in shown
    assert "best val/accuracy" in shown
    assert "amsgrad=false" in shown


def test_a_wrong_key_says_which_variable_to_set(here: Here, service: Service) -> None:
    done = here("ls", env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_wrong"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "set TRAIND_API_KEY" in done.stderr
    assert "td_wrong" not in done.stderr


def test_url_and_key_by_the_environment(here: Here, service: Service, finished: Job) -> None:
    done = here("ls", "--all", env={"TRAIND_URL": service.url, "TRAIND_API_KEY": service.api_key})
    assert finished.id in done.stdout


def test_metrics_in_every_form(here: Here, env: dict[str, str], finished: Job) -> None:
    table = here("metrics", finished.id, env=env).stdout
    row = next(line for line in table.splitlines() if line.startswith("train/loss")).split()
    assert row[1:3] == ["138", "1-138"]
    assert len(row[-1]) == 32
    rows = list(csv.DictReader(io.StringIO(here("metrics", finished.id, "val/loss", "-o", "csv", env=env).stdout)))
    assert [int(r["step1"]) for r in rows] == [46, 92, 138]
    document = json.loads(here("metrics", finished.id, "val/loss", "--from", "90", "-o", "json", env=env).stdout)
    assert [s["key"] for s in document["series"]] == ["val/loss"]
    assert document["series"][0]["buckets"]["step0"] == [92, 138]
    assert document["series"][0]["buckets"]["last"][-1] == float(rows[-1]["last"]) == finished.metrics.last["val/loss"]
    plot = here("metrics", finished.id, "val/loss", "-o", "plot", env=env).stdout
    assert plot.splitlines()[0].startswith("val/loss  last ")
    assert any("\u2801" <= c <= "\u28ff" for c in plot)


def test_metrics_that_are_not_there_are_an_error(here: Here, env: dict[str, str], finished: Job) -> None:
    done = here("metrics", finished.id, "val/nonsense", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "val/nonsense" in done.stderr


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))


def test_a_download_loads_into_the_model(here: Here, env: dict[str, str], finished: Job, tmp_path: Path) -> None:
    newest, first = tmp_path / "model.safetensors", tmp_path / "first.safetensors"
    done = here("download", finished.id, "-o", newest, env=env)
    assert (done.returncode, done.stdout) == (0, f"{newest}\n")
    assert here("download", finished.id, "--step", "46", "-o", first, env=env).returncode == 0
    network().load_state_dict(load_file(newest))
    network().load_state_dict(load_file(first))
    assert newest.read_bytes() != first.read_bytes()
    refused = here("download", finished.id, "-o", newest, "--step", "46", env=env)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--force replaces it" in refused.stderr
    here("download", finished.id, "-o", newest, "--step", "46", "--force", env=env)
    assert newest.read_bytes() == first.read_bytes()
    into = here("download", finished.id, "--part", "state", "-o", tmp_path, env=env).stdout.strip()
    assert into.endswith("-step-138-state.safetensors")
    assert load_file(into)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--step", "7"), 1, "it has 46, 92, 138"),
        (("-o", "/nowhere/at/all"), 2, "is not a folder"),
        (("-o", "/proc/model.safetensors"), 1, "cannot be written"),
    ],
)
def test_a_download_that_cannot_be_says_why(
    here: Here, env: dict[str, str], finished: Job, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    done = here("download", finished.id, *arguments, env=env)
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr


def test_a_download_before_the_first_checkpoint(here: Here, env: dict[str, str], endless: str) -> None:
    done = here("download", endless, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no complete checkpoint yet" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "at_least", "expected"),
    [
        (("checkpoints", "JOB"), 3, {"step": 46, "complete": True}),
        (("events", "JOB"), 6, {"kind": "submitted", "to_state": "queued"}),
        (("datasets",), 4, {"name": "digits"}),
        (("models",), 4, {"name": "linear"}),
        (("optimizers",), 2, {"name": "sgd"}),
    ],
)
def test_lists_are_one_json_array_or_a_table(
    here: Here, env: dict[str, str], finished: Job, arguments: tuple[str, ...], at_least: int, expected: dict[str, Any]
) -> None:
    arguments = tuple(finished.id if a == "JOB" else a for a in arguments)
    done = here(*arguments, "-o", "json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert len(found) >= at_least
    assert found[0].items() >= expected.items()
    assert len(here(*arguments, env=env).stdout.splitlines()) == len(found) + 1


def test_events_after_one(here: Here, env: dict[str, str], finished: Job) -> None:
    every = json.loads(here("events", finished.id, "-o", "json", env=env).stdout)
    later = json.loads(here("events", finished.id, "--after", str(every[1]["id"]), "-o", "json", env=env).stdout)
    assert later == every[2:]


def test_a_tty_gets_a_live_table_on_stderr_and_stdout_stays_data(env: dict[str, str]) -> None:
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "traind", "submit", *QUICK, "--watch", "-o", "json"],
        env=environment(**env, TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    with process:
        assert process.stdout is not None
        drawn = b"".join(iter(lambda: _read(master), b""))
        assert json.loads(process.stdout.read())["state"] == "succeeded"
    os.close(master)
    assert "█".encode() in drawn
    assert b"\x1b[" in drawn


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux says EIO where the other end is closed
        return b""
