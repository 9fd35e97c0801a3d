"""The JSON of workers; the rest is in `api.schemas`."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from api.schemas import Answer, Moment
from jobs.queries import WorkerState
from jobs.states import Kind


class HeldJob(Answer):
    """A running job or check of your project, and its progress."""

    id: UUID
    kind: Kind
    """`train` is a job, the others are checks; `link` is the path of either."""
    name: str | None
    attempt: int
    phase: str | None
    step: int
    total_steps: int
    rate_steps_per_second: float | None
    lease_left_seconds: float
    """Time until the lease ends; below 0, another worker may take the job."""
    link: str


class Worker(Answer):
    """A worker process and the jobs that it holds."""

    id: UUID
    name: str
    state: WorkerState
    """`ill`: its machine has a fault (see `trouble`), and it claims nothing until that is fixed. `silent`: it has given
    no sign of life for some time, but has not stopped properly.
    """
    device: Literal["cpu", "cuda"]
    queues: list[str]
    slots: int
    busy: int
    """Number of jobs that it holds, including those of other projects."""
    jobs: list[HeldJob]
    """The jobs of the key's project."""
    versions: dict[str, str]
    started_at: Moment
    last_seen_at: Moment
    seen_seconds: float
    """How long ago it was last seen, on the service's clock."""
    stopped_at: Moment | None
    trouble: str | None
    """What is wrong with its machine, and how to fix it; null if nothing was found."""
    memory_bytes: int | None
    """Memory that a trainer may use: the worker takes only jobs that are expected to fit. Null if it takes any job."""
    lacks: dict[str, str]
    """The data sets that it cannot read, and why: the worker takes no job of them."""


class WorkerList(Answer):
    """Workers: live ones, ill ones, silent ones, and then those that stopped, newest first."""

    workers: list[Worker]
