"""The JSON of workers; the rest is in `api.schemas`."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from api.schemas import Answer, Moment
from jobs.queries import WorkerState
from jobs.states import Kind


class HeldJob(Answer):
    """A running job or check of yours, and how far it is."""

    id: UUID
    kind: Kind
    """`train` is a job, the others are checks; `link` leads to either."""
    name: str | None
    attempt: int
    phase: str | None
    step: int
    total_steps: int
    rate_steps_per_second: float | None
    lease_left_seconds: float
    """How long the worker keeps it unheard of; below 0 another one may take it."""
    link: str


class Worker(Answer):
    """A worker process, and what it holds."""

    id: UUID
    name: str
    state: WorkerState
    """`ill`: its machine is at fault (`trouble` says how), and it claims nothing until that is mended. `silent`: it has
    not said that it is alive for some time, and has not stopped as it should either.
    """
    device: Literal["cpu", "cuda"]
    queues: list[str]
    slots: int
    busy: int
    """Jobs that it holds, those of other projects too."""
    jobs: list[HeldJob]
    """Those of the key's project."""
    versions: dict[str, str]
    started_at: Moment
    last_seen_at: Moment
    seen_seconds: float
    """How long ago it was last seen, on the service's clock."""
    stopped_at: Moment | None
    trouble: str | None
    """What is wrong with its machine, and what mends it; null if nothing was found."""
    memory_bytes: int | None
    """What a trainer may use there: it takes only jobs that are expected to fit. Null if it takes any."""


class WorkerList(Answer):
    """Workers: live ones, ill ones, silent ones, and then those that stopped, newest first."""

    workers: list[Worker]
