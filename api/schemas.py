"""The JSON that the api answers with. Requests are `traind.spec.JobSpec`; errors are `Problem`.

Numbers that are not finite travel as null, beside a `nonfinite` that says where and which. Times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict

from jobs.queries import ShownState, Waiting
from jobs.states import Outcome

NonFinite = Literal["nan", "inf", "-inf"]
Moment = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""A time, in UTC whatever the time zone of the database's session is."""


class Answer(BaseModel):
    """Base of every answer. JSON has no NaN and no infinity: null."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null")


class Progress(Answer):
    """How far the job is. Steps are optimizer updates."""

    step: int
    """The newest step that was observed."""
    total_steps: int
    saved_step: int | None
    """Step of the newest complete checkpoint: what a crash would go back to, and a pause goes on from."""
    epoch: int | None
    """Of `step`, from 1; null before the first step."""
    rate_steps_per_second: float | None
    eta_seconds: float | None
    no_room: str | None
    """Why the checkpoints of a job that runs are not taken in; null if they are."""


class Best(Answer):
    """The best finite value of a metric and the step it was measured at."""

    value: float
    step: int


class Summary(Answer):
    """The last and the best value of each metric."""

    last: dict[str, float | None]
    best: dict[str, Best]
    nonfinite: dict[str, NonFinite]
    """Keys whose last value is not a finite number, and which it is, if that is known."""


class Failure(Answer):
    """Why a job failed, or diverged."""

    model_config = ConfigDict(extra="allow")

    code: str
    message: str
    retryable: bool = False


class WaitingFor(Answer):
    """What a queued job waits for, if that is not its turn."""

    reason: Waiting
    """`worker`: none is alive; `queue`: none listens to its queue; `device`: none has its device; `memory`: none
    has as much as it needs; `health`: those that could take it are ill; `back-off`: it starts again `until` then."""
    message: str
    until: Moment | None


class JobLinks(Answer):
    """Paths of what belongs to the job."""

    self: str
    cancel: str
    pause: str
    resume: str
    retry: str
    events: str
    attempts: str
    metrics: str
    checkpoints: str
    checks: str
    audit: str


class Creator(Answer):
    """The API key that asked for something. The name is the one it had then."""

    key_id: int
    name: str


class Job(Answer):
    """A job: what was asked for, what the service made of it, and how far it is."""

    id: UUID
    name: str | None
    labels: dict[str, str]
    state: ShownState
    """`cancelling` and `pausing` are a running job of which that was asked."""
    phase: str | None
    waiting_for: WaitingFor | None
    """Null if no worker lacks: the job runs, has ended, or waits for its turn."""
    stopped_early: bool
    """Whether `training.early_stopping` ended it before `total_steps`; its state is then `succeeded`."""
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    crash_count: int
    resume_exact: bool
    """Whether what it has trained is, to the bit, what an uninterrupted run would have."""
    resume_differences: list[str]
    """Where it is not: how the machines that went on differed from those before them."""
    spec: dict[str, Any]
    """The spec with every default filled."""
    resolved: dict[str, Any]
    progress: Progress
    metrics: Summary
    error: Failure | None
    created_by: Creator | None
    """The API key that submitted it; null if a release before did not say."""
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    updated_at: Moment
    version: int
    """Grows with every change; the ETag is it and what the job waits for."""
    links: JobLinks


class DryRun(Answer):
    """What a submit would have made a job of; nothing was stored."""

    spec: dict[str, Any]
    """The spec with every default filled."""
    resolved: dict[str, Any]
    waiting_for: WaitingFor | None
    """What the job would wait for now, if that is not its turn."""


class JobPage(Answer):
    """Jobs, newest first."""

    jobs: list[Job]
    next_cursor: str | None
    """Pass it as `cursor` for the next page; null on the last."""


class Event(Answer):
    """One entry of a job's record: a transition, or what else is worth knowing."""

    id: int
    kind: str
    from_state: str | None
    to_state: str | None
    attempt: int
    data: dict[str, Any]
    created_at: Moment


class EventPage(Answer):
    """Events, oldest first."""

    events: list[Event]
    next_after: int | None
    """Pass it as `after` for the next page; null if there is nothing more yet."""


class Attempt(Answer):
    """One execution of the job by a worker."""

    number: int
    worker_id: UUID
    from_step: int
    """0, or the step of the checkpoint it started from."""
    from_checkpoint_id: int | None
    fingerprint: dict[str, Any] | None
    """What its bits depend on: versions, device, threads, data."""
    resume_exact: bool | None
    """Whether all that is as it was when its checkpoint was taken; null before it is known, or from the start."""
    outcome: Outcome | None
    """Null while it runs."""
    error: Failure | None
    log: str | None
    """The end of what the trainer printed."""
    started_at: Moment
    ended_at: Moment | None


class AttemptList(Answer):
    """Attempts, the first one first."""

    attempts: list[Attempt]


class Blob(Answer):
    """One of a checkpoint's two files."""

    size: int
    sha256: str | None
    """Null until it is complete."""


class CheckpointLinks(Answer):
    """Paths of what belongs to the checkpoint; `model` and `state` are its files."""

    self: str
    job: str
    model: str
    state: str
    verify: str


class Checkpoint(Answer):
    """A saved training state: `model` holds the weights alone, `state` what a resume needs besides."""

    id: int
    job_id: UUID
    attempt: int
    step: int
    kind: str
    """interval, final, pause or drain."""
    complete: bool
    pinned: bool
    damage: str | None
    """What was found wrong with it when an attempt was to start from it; none does any more."""
    model: Blob
    state: Blob
    summary: Summary
    """The job's metrics at that step."""
    created_at: Moment
    completed_at: Moment | None
    links: CheckpointLinks


class CheckpointList(Answer):
    """Checkpoints by step."""

    checkpoints: list[Checkpoint]


class Buckets(Answer):
    """Columns of equal length, one entry per bucket of neighbouring points; no spike and no NaN is lost."""

    step0: list[int]
    step1: list[int]
    first: list[float | None]
    last: list[float | None]
    min: list[float | None]
    """Of the values that are not NaN, as are max and mean."""
    max: list[float | None]
    mean: list[float | None]
    count: list[int]
    """Points behind the bucket; if it is 1, the bucket is that point."""
    nan_count: list[int]


class Series(Answer):
    """One metric, or with attempts=all what one attempt recorded of it."""

    key: str
    attempt: int | None
    """Null if the series runs over all attempts."""
    count: int
    """Points behind all buckets."""
    buckets: Buckets
    nonfinite: list[tuple[str, int, NonFinite]]
    """What the nulls stand for: column, index, value."""


class Metrics(Answer):
    """Metrics of a job in a range of steps, both ends included."""

    job_id: UUID
    step_from: int
    step_to: int | None
    attempts: Literal["visible", "all"]
    series: list[Series]


class CatalogueEntry(Answer):
    """What a spec can name, and the JSON schema of its parameters."""

    name: str
    description: str
    parameters: dict[str, Any]


class Datasets(Answer):
    datasets: list[CatalogueEntry]


class Models(Answer):
    models: list[CatalogueEntry]


class Optimizers(Answer):
    optimizers: list[CatalogueEntry]


class Root(Answer):
    """What answers here, and where to go on: paths of this service."""

    name: Literal["traind"]
    version: str
    jobs: str
    openapi: str
    ready: str


class Live(Answer):
    """The process answers."""

    status: Literal["ok"]


class Ready(Answer):
    """The service can take jobs. `degraded` names what is not well but not needed for that: `redis` does not answer,
    `storage` has no room for checkpoints, or none for those of a job that runs."""

    status: Literal["ok", "degraded"]
    degraded: list[str]


class FieldError(Answer):
    """One bad field of the body, by its JSON pointer (RFC 6901), or one bad parameter, by its name."""

    pointer: str | None = None
    parameter: str | None = None
    code: str
    message: str


class Problem(Answer):
    """RFC 9457. Some codes have members of their own, such as `state` and `possible` of `state-conflict`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    """Stable; what a program should look at."""
    pointer: str | None = None
    """The first bad field of the body."""
    errors: list[FieldError]
    request_id: str
    """Also in the header X-Request-Id and in the service's log."""
