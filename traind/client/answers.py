"""What the service answers, as typed values. Unknown fields are kept, so an old client reads a newer service.

`document()` returns the JSON that the service sent. Numbers that are not finite are None.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Part = Literal["model", "state"]
Start = Literal["checkpoint", "start"]
Column = Literal["first", "last", "min", "max", "mean"]
FINAL_STATES = frozenset({"succeeded", "diverged", "failed", "cancelled"})


class Answer(BaseModel):
    """Base of every answer: frozen, and lenient about fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    def document(self) -> dict[str, Any]:
        """The answer as JSON values, including fields that this version does not know."""
        return self.model_dump(mode="json", exclude_unset=True)


class Progress(Answer):
    """The progress of a job. Steps are optimizer updates: `step` is the newest observed, `saved_step` the newest
    checkpoint's. `no_room` says why its checkpoints are not accepted.
    """

    step: int = 0
    total_steps: int | None = None
    saved_step: int | None = None
    epoch: int | None = None
    rate_steps_per_second: float | None = None
    eta_seconds: float | None = None
    no_room: str | None = None


class Best(Answer):
    """The best finite value of a metric and the step it was measured at."""

    value: float
    step: int


class Summary(Answer):
    """The last and the best value of each metric. `nonfinite` gives the value behind a None in `last`, if known."""

    last: dict[str, float | None] = {}
    best: dict[str, Best] = {}
    nonfinite: dict[str, str] = {}


class JobError(Answer):
    """Why a job failed or diverged."""

    code: str
    message: str = ""
    retryable: bool = False


class WaitingFor(Answer):
    """What a queued job waits for: `reason` is worker, queue, device, memory, dataset, health or back-off; `message` is
    a sentence."""

    reason: str
    message: str = ""
    until: AwareDatetime | None = None


class Creator(Answer):
    """The API key that made a request: its id, and its name at that time."""

    key_id: int
    name: str = ""


class Job(Answer):
    """A job: its spec, state and progress. `state` is `cancelling` or `pausing` while such a request is pending."""

    id: str
    name: str | None = None
    labels: dict[str, str] = {}
    state: str
    phase: str | None = None
    waiting_for: WaitingFor | None = None
    """None if the job runs, has ended, or only waits for its turn."""
    stopped_early: bool = False
    """Whether `training.early_stopping` ended the job before `total_steps`; such a job has succeeded."""
    queue: str = "default"
    priority: int = 0
    attempt: int = 0
    max_attempts: int = 1
    crash_count: int = 0
    resume_exact: bool = True
    """Whether the training so far equals an uninterrupted run bit for bit; if not, see `resume_differences`."""
    resume_differences: tuple[str, ...] = ()
    spec: dict[str, Any]
    resolved: dict[str, Any] = {}
    progress: Progress = Progress()
    metrics: Summary = Summary()
    error: JobError | None = None
    created_by: Creator | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
    version: int = 0

    @property
    def final(self) -> bool:
        """Whether the job has ended; its state then changes only by an explicit retry."""
        return self.state in FINAL_STATES

    @property
    def state_and_reason(self) -> str:
        """The state with its reason, if there is one: "queued (waiting: device)", "succeeded (stopped early)"."""
        if self.stopped_early:
            return f"{self.state} (stopped early)"
        if self.progress.no_room is not None:
            return f"{self.state} (no room for checkpoints)"
        return self.state if self.waiting_for is None else f"{self.state} (waiting: {self.waiting_for.reason})"


class DryRun(Answer):
    """The job that a submit would create: the spec with all defaults, and what the service worked out."""

    spec: dict[str, Any]
    resolved: dict[str, Any]
    waiting_for: WaitingFor | None = None
    """What the job would wait for now, apart from its turn."""


class Event(Answer):
    """An event of a job: a transition or something else worth knowing."""

    id: int
    kind: str
    from_state: str | None = None
    to_state: str | None = None
    attempt: int = 0
    data: dict[str, Any] = {}
    created_at: AwareDatetime


class Blob(Answer):
    """One of a checkpoint's two files; `sha256` is None until it is complete."""

    size: int
    sha256: str | None = None


class Checkpoint(Answer):
    """A saved training state: the model's weights and, in a second file, everything else that a resume needs."""

    id: int
    job_id: str
    attempt: int
    step: int
    kind: str
    complete: bool
    damage: str | None = None
    """The damage found when an attempt tried to start from it; such a checkpoint is no longer used."""
    model: Blob
    state: Blob
    summary: dict[str, Any] = {}
    created_at: AwareDatetime
    completed_at: AwareDatetime | None = None


class TensorDifference(Answer):
    """How a stored tensor differs from the replayed one; `problem` is values, missing, unexpected or kind."""

    tensor: str
    problem: str
    n_elements: int | None = None
    n_different: int | None = None
    first_index: tuple[int, ...] | None = None
    stored: float | str | None = None
    replayed: float | str | None = None
    largest_difference: float | None = None


class VerifyResult(Answer):
    """A checkpoint compared with a replay. If `exact` is false (see `reasons`), a difference does not prove damage."""

    kind: Literal["verify"]
    equal: bool
    exact: bool
    reasons: tuple[str, ...] = ()
    intact: dict[str, bool]
    """Whether each file still has its stored SHA-256."""
    unreadable: dict[str, str] = {}
    ended: str | None = None
    """Why the replay did not reach the checkpoint's step; None if it did."""
    n_tensors: int
    n_different: int
    differences: tuple[TensorDifference, ...] = ()
    """The first different tensors, weights before the rest."""
    rest: tuple[str, ...] = ()
    """What differs apart from the tensors."""


class AuditTensor(Answer):
    """A tensor from optim_core compared with torch.optim's; `largest_ulp` is None if only one of two values is NaN."""

    tensor: str
    n_elements: int
    n_different: int
    largest_ulp: int | None
    largest_difference: float | None


class AuditResult(Answer):
    """The first steps of a job with optim_core, compared with the same steps with torch.optim."""

    kind: Literal["audit"]
    equal: bool
    steps: int
    optimizer: str
    torch: str
    ended: dict[str, str | None] = {}
    first_different_step: int | None = None
    n_tensors: int
    n_different: int
    largest_ulp: int | None = None
    tensors: tuple[AuditTensor, ...] = ()


class Check(Answer):
    """A replay of a part of a job. `result` is set once the check has succeeded, whatever it found."""

    id: str
    kind: str
    state: str
    phase: str | None = None
    attempt: int = 0
    job_id: str
    checkpoint_id: int | None = None
    from_checkpoint_id: int | None = None
    from_step: int
    to_step: int
    steps_done: int = 0
    steps_total: int
    result: Annotated[VerifyResult | AuditResult, Field(discriminator="kind")] | None = None
    error: JobError | None = None
    created_by: Creator | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
    version: int = 0

    @property
    def final(self) -> bool:
        """Whether the check has ended."""
        return self.state in FINAL_STATES


class Buckets(Answer):
    """Columns of equal length, one entry per bucket of neighbouring points; a bucket of one point is that point."""

    step0: tuple[int, ...]
    step1: tuple[int, ...]
    first: tuple[float | None, ...]
    last: tuple[float | None, ...]
    min: tuple[float | None, ...]
    max: tuple[float | None, ...]
    mean: tuple[float | None, ...]
    count: tuple[int, ...]
    nan_count: tuple[int, ...]


class Series(Answer):
    """One metric. `nonfinite` lists the values behind Nones: column, index, and "nan", "inf" or "-inf"."""

    key: str
    count: int
    buckets: Buckets
    nonfinite: tuple[tuple[str, int, str], ...] = ()

    def values(self, column: Column) -> list[float]:
        """A column of the buckets, including NaN and infinities."""
        values = [math.nan if value is None else value for value in getattr(self.buckets, column)]
        for name, index, text in self.nonfinite:
            if name == column:
                values[index] = float(text)
        return values

    def rows(self) -> list[dict[str, Any]]:
        """One dict per bucket with all its columns, including NaN and infinities."""
        numbers = {name: self.values(name) for name in get_args(Column)}
        columns = {name: numbers.get(name) or getattr(self.buckets, name) for name in Buckets.model_fields}
        return [dict(zip(columns, bucket, strict=True)) for bucket in zip(*columns.values(), strict=True)]


class Metrics(Answer):
    """Metrics of a job, one series per key."""

    job_id: str
    series: tuple[Series, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One dict per bucket of each series, ready for a data frame: `job_id`, `key`, and the bucket's columns."""
        return [{"job_id": self.job_id, "key": each.key} | row for each in self.series for row in each.rows()]


class HeldJob(Answer):
    """A running job that a worker holds, or a check (`kind` verify or audit), and its progress."""

    id: str
    kind: str = "train"
    name: str | None = None
    attempt: int = 0
    phase: str | None = None
    step: int = 0
    total_steps: int | None = None
    rate_steps_per_second: float | None = None
    lease_left_seconds: float


class Worker(Answer):
    """A worker process: `state` is live, ill (`trouble` says why), silent or stopped.

    `busy` also counts the jobs of other projects.
    """

    id: str
    name: str
    state: str
    device: str
    queues: tuple[str, ...] = ()
    slots: int = 1
    busy: int = 0
    jobs: tuple[HeldJob, ...] = ()
    versions: dict[str, str] = {}
    started_at: AwareDatetime
    last_seen_at: AwareDatetime
    seen_seconds: float
    stopped_at: AwareDatetime | None = None
    trouble: str | None = None
    memory_bytes: int | None = None
    """Memory that a trainer may use there; None if the worker takes any job."""
    lacks: dict[str, str] = {}
    """The data sets that it cannot read, and why: the worker takes no job of them."""


class CatalogueEntry(Answer):
    """A data set, model or optimizer that a spec can name, with the JSON schema of its parameters."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
