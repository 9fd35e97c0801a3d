"""The table of jobs, one line per job, from their documents. Shown by `traind ls`, `watch` and the verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from traind.cli import output
from traind.cli.differences import ALWAYS, differing, settings, titles
from traind.cli.output import number, when
from traind.cli.table import Ident
from traind.errors import ApiError

MAIN_METRICS = ("val/accuracy", "val/loss", "train/loss")
SPARE = ("created", "saved", "dataset", "model", "name", "step")
"""Columns that are dropped on a narrow terminal, in this order; then the differing hyperparameters, from the last."""

Document = Mapping[str, Any]


def job_table(jobs: Sequence[Document], *, metric: str | None = None) -> None:
    """Print the jobs on stdout, with the last and best value of `metric` (default: the first of MAIN_METRICS)."""
    key = metric or main_metric(jobs)
    rows = [settings(job.get("spec", {})) for job in jobs]
    paths = differing(rows, without=ALWAYS)
    before, after = ("id", "name", "state", "dataset", "model", "optimizer", "lr"), ("step", "saved")
    headers = (*before, *titles(paths), *after, key, "best", "created")
    cells = [_row(job, row, paths, key) for job, row in zip(jobs, rows, strict=True)]
    n = len(before)
    own = range(n + len(paths) - 1, n - 1, -1)
    output.table(
        headers,
        cells,
        right=(n - 1, *range(n + len(paths), n + len(paths) + 4)),
        spare=(*(headers.index(name) for name in SPARE), *own),
        cut=(headers.index("state"),),
    )


def bad_answer() -> ApiError:
    return ApiError("bad-answer", "the service's answer is not a list of jobs as this client knows them")


def main_metric(jobs: Sequence[Document]) -> str:
    """The first of MAIN_METRICS that any job has."""
    known = {key for job in jobs for key in _summary(job).get("last", {})}
    return next((key for key in MAIN_METRICS if key in known), MAIN_METRICS[0])


def note_unknown(jobs: Sequence[Document], key: str) -> None:
    """Say on stderr if the jobs have metrics, but none of them this one."""
    known = sorted({name for job in jobs for name in _summary(job).get("last", {})})
    if known and key not in known:
        output.note(f"none of these jobs has {key}; they have {', '.join(known)}")


def better_is_higher(key: str) -> bool:
    """The rule by which workers keep the best value of a metric."""
    return key.endswith("accuracy")


def last_value(job: Document, key: str) -> str:
    """The last value of a metric as text; "nan" or "inf" as it is."""
    last, nonfinite = (_summary(job).get(name, {}) for name in ("last", "nonfinite"))
    if key not in last:
        return ""
    return nonfinite.get(key, "nan") if last[key] is None else number(last[key])


def last_number(job: Document, key: str) -> float | None:
    """The last value of a metric; None if there is none, or none that is finite."""
    value: float | None = _summary(job).get("last", {}).get(key)
    return value


def best_value(job: Document, key: str) -> float | None:
    """The best finite value of a metric; None if there is none."""
    best = _summary(job).get("best", {}).get(key)
    return None if best is None else best["value"]


def state_and_reason(job: Document) -> str:
    """The state with its reason, if there is one: "queued (waiting: device)", "succeeded (stopped early)"."""
    if job.get("stopped_early"):
        return f"{job['state']} (stopped early)"
    if job.get("progress", {}).get("no_room"):
        return f"{job['state']} (no room for checkpoints)"
    waits = job.get("waiting_for")
    return str(job["state"]) if waits is None else f"{job['state']} (waiting: {waits['reason']})"


def early_stop(job: Document) -> str:
    """Why a job that stopped early did: "at step 15 of 500: val/loss did not improve in 2 evaluations"."""
    rule, progress = job["spec"]["training"]["early_stopping"], job["progress"]
    steps = f"at step {progress['step']} of {progress['total_steps']}"
    by = f" by more than {number(rule['min_delta'])}" if rule["min_delta"] else ""
    return f"{steps}: {rule['metric']} did not improve{by} in {rule['patience']} evaluations"


def _row(job: Document, row: Mapping[str, str], paths: Sequence[str], key: str) -> tuple[object, ...]:
    progress = job.get("progress", {})
    return (
        Ident(job["id"]),
        job.get("name"),
        state_and_reason(job),
        *(row.get(path) for path in (*ALWAYS, *paths)),
        f"{progress.get('step', 0)}/{progress.get('total_steps')}",
        progress.get("saved_step"),
        last_value(job, key),
        number(best_value(job, key)),
        when(output.moment(job["created_at"])),
    )


def _summary(job: Document) -> Document:
    summary: Document = job.get("metrics") or {}
    return summary
