"""`traind demo`: one model on one data set with SGD, SGD with Nesterov momentum and Adam, through a whole service.

The service has a data folder of its own, which is kept, so that what the demo says about it stays true. Everything
that runs ends with the demo, also when the demo's parent (make, a shell) is killed: then it stops by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from jobs.settings import load
from local.errors import LocalError
from local.signals import stop_signals
from local.supervisor import Service
from traind.cli.errors import FAILED, INTERRUPTED, OK
from traind.cli.live import Board, last
from traind.cli.output import data as line
from traind.cli.output import duration, note, number, show, stderr
from traind.cli.plots import Scale, sparkline
from traind.client import Client, Job

POLL_SECONDS = 0.25
STUCK_SECONDS = 120.0
CURVES = ("val/accuracy", "train/loss")
CURVE_CELLS = 40

Json = Mapping[str, Any]
COMMON: Mapping[str, Json] = {
    "digits": {
        "model": {"name": "mlp", "hidden": [256, 128]},
        "training": {"epochs": 25, "batch_size": 32, "seed": 0, "threads": 1},
    },
    "fashion_mnist": {
        "model": {"name": "mlp", "hidden": [128]},
        "training": {"epochs": 3, "batch_size": 64, "seed": 0, "threads": 1},
    },
}
"""What the three jobs share, by data set."""

OPTIMIZERS: Mapping[str, Json] = {
    "SGD": {"name": "sgd", "lr": 0.1},
    "SGD, Nesterov": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adam": {"name": "adam", "lr": 0.002},
}


class Orphaned(Exception):
    """The process that started the demo has gone."""


def run(data: str, *, data_dir: Path | None = None) -> int:
    """Run the demo on the data set `data`, one of COMMON, and return the exit code: 0 where every job succeeded."""
    parent = os.getppid()
    load()  # refused settings leave no folder behind
    folder = data_dir or Path(tempfile.mkdtemp(prefix="traind-demo-"))
    try:
        with stop_signals():
            note("starting the service")
            with Service(folder, report=_report) as service, Client(service.url, service.api_key) as client:
                note(f"API   {service.url}\ndata  {folder}\n")
                jobs = _train(client, data, parent)
                curves = {job.id: _curves(client, job) for job in jobs}
    except KeyboardInterrupt:
        note(f"stopped; nothing is left running. What there was is in {folder}")
        return INTERRUPTED
    except Orphaned:
        return FAILED
    except LocalError:
        note(f"logs are in {folder / 'logs'}")
        raise
    tell(jobs, curves, service.url, folder)
    return _outcome(jobs, folder)


def tell(jobs: Sequence[Job], curves: Mapping[str, Mapping[str, Sequence[float]]], url: str, folder: Path) -> None:
    """The outcome on stdout; on stderr where everything is, also if stdout cannot be written."""
    try:
        _compare(jobs, curves)
    finally:
        _say_where(url, folder, jobs)


def _report(line: str) -> None:
    """A line above the board; from any thread, so what cannot be written is dropped."""
    with contextlib.suppress(OSError):
        stderr().print(line)


def _train(client: Client, data: str, parent: int) -> list[Job]:
    """Submit the three jobs, show them until all have ended, and return them. Raises Orphaned, and LocalError where
    nothing happens any more.
    """
    jobs = [
        client.submit({"name": name, "dataset": {"name": data}, "optimizer": optimizer, **COMMON[data]})
        for name, optimizer in OPTIMIZERS.items()
    ]
    moved_at = time.monotonic()
    with Board(stderr(), several=True, line_seconds=1.0) as board:
        while True:
            for job in jobs:
                board.update(job)
            if all(job.final for job in jobs):
                return jobs
            for job in jobs:
                if job.waiting_for is not None and job.waiting_for.reason == "dataset":
                    raise LocalError(job.waiting_for.message)
            if os.getppid() != parent:
                raise Orphaned
            time.sleep(POLL_SECONDS)
            before, jobs = jobs, [job if job.final else client.get(job.id) for job in jobs]
            if [job.version for job in jobs] != [job.version for job in before]:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > STUCK_SECONDS:
                raise LocalError(f"nothing has happened for {STUCK_SECONDS:g} s; the worker's log says more")


def _curves(client: Client, job: Job) -> dict[str, list[float]]:
    found = client.metrics(job.id, keys=[key for key in CURVES if key in job.metrics.last], max_points=CURVE_CELLS)
    return {series.key: series.values("mean") for series in found.series}


def _compare(jobs: Sequence[Job], curves: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """The outcome on stdout: the numbers as a table, then the curves of each metric on one scale."""
    tops = {job.id: job.metrics.best["val/accuracy"].value for job in jobs if "val/accuracy" in job.metrics.best}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, header in enumerate(("optimizer", "lr", "best acc", "final acc", "val loss", "steps/s", "wall time")):
        table.add_column(header, justify="right" if i > 1 else "left")
    for job in jobs:
        top = tops.get(job.id)
        table.add_row(
            job.name,
            number(job.spec["optimizer"]["lr"]),
            Text(number(top), style="bold green" if top == max(tops.values(), default=None) else ""),
            last(job, "val/accuracy"),
            last(job, "val/loss"),
            _rate(job),
            duration(_wall_seconds(job)),
        )
    note("")
    show(table)
    for key in CURVES:
        _draw(key, {job.name or job.id: curves[job.id][key] for job in jobs if key in curves[job.id]})


def _draw(key: str, curves: Mapping[str, Sequence[float]]) -> None:
    scale = Scale.of([value for curve in curves.values() for value in curve])
    if scale is None:
        return
    line(f"\n{key}, {number(scale.low)} to {number(scale.high)}{', by its logarithm' if scale.log else ''}")
    for name, curve in curves.items():
        line(f"{name:<14} {sparkline(curve, scale)}")


def _rate(job: Job) -> str:
    seconds = _wall_seconds(job)
    return f"{job.progress.step / seconds:,.0f}" if seconds else ""


def _wall_seconds(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return (job.finished_at - job.started_at).total_seconds()


def _say_where(url: str, folder: Path, jobs: Sequence[Job]) -> None:
    where = folder if load().database_url is None else "the database of TRAIND_DATABASE_URL"
    traind = _command()
    last_id = jobs[-1].id if jobs else "JOB"
    note(f"""
The API at {url} has stopped. Metrics and checkpoints are in {where}.
To look again, and to remove what there is:
  {traind} up --data-dir {folder}
  {traind} metrics -o plot --data-dir {folder} {last_id}
  {traind} download --data-dir {folder} {last_id} -o model.safetensors
  rm -r {folder}""")


def _command() -> str:
    """`traind` as it can be typed here: by name where it is on PATH, else by its path."""
    program = Path(sys.executable).with_name("traind")
    if shutil.which("traind") == str(program):
        return "traind"
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)


def _outcome(jobs: Sequence[Job], folder: Path) -> int:
    failed = [job for job in jobs if job.state != "succeeded"]
    for job in failed:
        reason = f": {job.error.message} ({job.error.code})" if job.error else ""
        note(f"{job.name} {job.state}{reason}; logs are in {folder / 'logs'}")
    return FAILED if failed else OK
