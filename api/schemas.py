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
"""A time in UTC, whatever the time zone of the database's session."""


class Answer(BaseModel):
    """Base of every answer. NaN and infinity, which JSON cannot represent, become null."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null")


class Progress(Answer):
    """The progress of the job. Steps are optimizer updates."""

    step: int
    """The newest step that was observed."""
    total_steps: int
    saved_step: int | None
    """Step of the newest complete checkpoint, from which the job continues after a crash or a pause."""
    epoch: int | None
    """The epoch of `step`, from 1; null before the first step."""
    rate_steps_per_second: float | None
    eta_seconds: float | None
    no_room: str | None
    """Why the checkpoints of a running job are not accepted; null if they are."""


class Best(Answer):
    """The best finite value of a metric and the step it was measured at."""

    value: float
    step: int


class Summary(Answer):
    """The last and the best value of each metric."""

    last: dict[str, float | None]
    best: dict[str, Best]
    nonfinite: dict[str, NonFinite]
    """Keys with a last value that is not a finite number, and that value, if it is known."""


class Failure(Answer):
    """Why a job failed, or diverged."""

    model_config = ConfigDict(extra="allow")

    code: str
    message: str
    retryable: bool = False


class WaitingFor(Answer):
    """What a queued job waits for, if not for its turn."""

    reason: Waiting
    """`worker`: no worker is alive; `queue`: none serves its queue; `device`: none has its device; `memory`: none has
    enough memory; `dataset`: none can read its data; `health`: the workers that could take it are ill; `back-off`: it
    cannot start before `until`."""
    message: str
    until: Moment | None


class JobLinks(Answer):
    """Paths of the job's resources."""

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
    """The API key that made a request, with its name at that time."""

    key_id: int
    name: str


class Job(Answer):
    """A job: its spec, what the service worked out from it, its state and its progress."""

    id: UUID
    name: str | None
    labels: dict[str, str]
    state: ShownState
    """`cancelling` and `pausing` mean that the job is running and that was requested."""
    phase: str | None
    waiting_for: WaitingFor | None
    """Null if the job runs, has ended, or only waits for its turn."""
    stopped_early: bool
    """Whether `training.early_stopping` ended the job before `total_steps`; its state is then `succeeded`."""
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    crash_count: int
    resume_exact: bool
    """Whether the training so far equals an uninterrupted run bit for bit."""
    resume_differences: list[str]
    """If not: how the machines that resumed the job differed from those before them."""
    spec: dict[str, Any]
    """The spec with every default filled."""
    resolved: dict[str, Any]
    progress: Progress
    metrics: Summary
    error: Failure | None
    created_by: Creator | None
    """The API key that submitted it; null if an earlier release did not record it."""
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    updated_at: Moment
    version: int
    """Increases with every change; the ETag is made of it and of what the job waits for."""
    links: JobLinks


class DryRun(Answer):
    """The job that a submit would have created; nothing was stored."""

    spec: dict[str, Any]
    """The spec with every default filled."""
    resolved: dict[str, Any]
    waiting_for: WaitingFor | None
    """What the job would wait for now, if not for its turn."""


class JobPage(Answer):
    """Jobs, newest first."""

    jobs: list[Job]
    next_cursor: str | None
    """Pass it as `cursor` for the next page; null on the last."""


class Event(Answer):
    """An event of a job: a transition, or something else worth knowing."""

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
    """What the attempt's bits depend on: versions, device, threads, data."""
    resume_exact: bool | None
    """Whether the fingerprint is the same as when its checkpoint was taken; null until known, or without checkpoint."""
    outcome: Outcome | None
    """Null while it runs."""
    error: Failure | None
    log: str | None
    """The end of the trainer's output."""
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
    """Paths of the checkpoint's resources; `model` and `state` are its files."""

    self: str
    job: str
    model: str
    state: str
    verify: str


class Checkpoint(Answer):
    """A saved training state: `model` holds only the weights, `state` everything else that a resume needs."""

    id: int
    job_id: UUID
    attempt: int
    step: int
    kind: str
    """interval, final, pause or drain."""
    complete: bool
    pinned: bool
    damage: str | None
    """The damage found when an attempt tried to start from it; such a checkpoint is no longer used."""
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
    """Minimum of the values that are not NaN; max and mean also leave NaN out."""
    max: list[float | None]
    mean: list[float | None]
    count: list[int]
    """Number of points in the bucket; if it is 1, the bucket is that point."""
    nan_count: list[int]


class Series(Answer):
    """One metric, or, with attempts=all, the points of one attempt."""

    key: str
    attempt: int | None
    """Null if the series covers all attempts."""
    count: int
    """Number of points in all buckets."""
    buckets: Buckets
    nonfinite: list[tuple[str, int, NonFinite]]
    """The values behind the nulls: column, index, value."""


class Metrics(Answer):
    """Metrics of a job in a range of steps, inclusive at both ends."""

    job_id: UUID
    step_from: int
    step_to: int | None
    attempts: Literal["visible", "all"]
    series: list[Series]


class CatalogueEntry(Answer):
    """A data set, model or optimizer that a spec can name, with the JSON schema of its parameters."""

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
    """The name of the service and its main paths."""

    name: Literal["traind"]
    version: str
    jobs: str
    openapi: str
    ready: str


class Live(Answer):
    """The process answers."""

    status: Literal["ok"]


class Ready(Answer):
    """The service can accept jobs. `degraded` names problems that do not prevent this: `redis` does not answer,
    `storage` has no room for checkpoints, or none for those of a running job."""

    status: Literal["ok", "degraded"]
    degraded: list[str]


class FieldError(Answer):
    """One bad field of the body, by its JSON pointer (RFC 6901), or one bad parameter, by its name."""

    pointer: str | None = None
    parameter: str | None = None
    code: str
    message: str


class Problem(Answer):
    """A problem document (RFC 9457). Some codes add members, such as `state` and `possible` for `state-conflict`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    """Stable; programs should check this field."""
    pointer: str | None = None
    """The first bad field of the body."""
    errors: list[FieldError]
    request_id: str
    """Also in the header X-Request-Id and in the service's log."""
