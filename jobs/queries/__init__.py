"""Reads of jobs and what belongs to them, as frozen rows; called by the api.

    jobs      one job, and the list with its cursor
    filters   what a list of jobs can be filtered by
    history   a job's events, attempts and checkpoints
    checks    replays of a job, which are jobs of another kind
    workers   the list of workers, and what each holds
    waiting   what a queued job waits for

Each function takes the caller's project: what belongs to another does not exist. Postgres is the only source, and
nothing here reads metric points: what lists show are the summary columns of the job.
"""

from jobs.queries.checks import CheckRow, checks, get_check
from jobs.queries.filters import Bound, Filter, MetricBound
from jobs.queries.history import (
    AttemptRow,
    BlobRow,
    CheckpointRow,
    EventRow,
    attempts,
    checkpoint,
    checkpoints,
    events,
)
from jobs.queries.jobs import JobPage, JobRow, get_job, list_jobs
from jobs.queries.waiting import Waiting, WaitingFor, would_wait_for
from jobs.queries.workers import HeldJob, WorkerRow, WorkerState, list_workers
from jobs.states import ShownState

__all__ = [
    "AttemptRow",
    "BlobRow",
    "Bound",
    "CheckRow",
    "CheckpointRow",
    "EventRow",
    "Filter",
    "HeldJob",
    "JobPage",
    "JobRow",
    "MetricBound",
    "ShownState",
    "Waiting",
    "WaitingFor",
    "WorkerRow",
    "WorkerState",
    "attempts",
    "checkpoint",
    "checkpoints",
    "checks",
    "events",
    "get_check",
    "get_job",
    "list_jobs",
    "list_workers",
    "would_wait_for",
]
