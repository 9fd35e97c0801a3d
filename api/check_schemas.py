"""The JSON of checks; the rest is in `api.schemas`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from api.schemas import Answer, Creator, Failure, Moment
from jobs.queries import ShownState


class TensorDifference(Answer):
    """How a stored tensor differs from the replayed one."""

    tensor: str
    """`model/` and the tensor's name in the weights, or `state/` and its name in the rest."""
    problem: Literal["values", "missing", "unexpected", "kind"]
    """The stored tensor has other values, is missing, should not exist, or has another shape or type."""
    n_elements: int | None = None
    n_different: int | None = None
    first_index: list[int] | None = None
    """Index of the first different element."""
    stored: float | str | None = None
    """The value of that element (null if it is not a finite number), or the shape and type."""
    replayed: float | str | None = None
    largest_difference: float | None = None
    """Null if it is not a finite number."""


class Intact(Answer):
    """Whether each file still has its stored SHA-256."""

    model: bool
    state: bool


class VerifyResult(Answer):
    """A checkpoint compared with a replay from the checkpoint before it."""

    kind: Literal["verify"] = "verify"
    equal: bool
    """Whether the replay matches the checkpoint in every bit, and its files are as they were stored."""
    exact: bool
    """Whether this machine computes the same bits as the one that trained; if not, a difference proves no damage."""
    reasons: list[str]
    """Why `exact` is false."""
    intact: Intact
    unreadable: dict[str, str]
    """Files that cannot be read as a checkpoint, and why."""
    ended: str | None
    """Why the replay did not reach the checkpoint's step; null if it did."""
    n_tensors: int
    n_different: int
    differences: list[TensorDifference]
    """The first different tensors, weights before the rest."""
    rest: list[str]
    """What differs apart from the tensors: step, open metric windows, early stopping."""


class AuditTensor(Answer):
    """One weight or one tensor of the optimizer's state after the last step."""

    tensor: str
    n_elements: int
    n_different: int
    largest_ulp: int | None
    """Largest difference in units in the last place; null if only one of two values is NaN."""
    largest_difference: float | None


class AuditResult(Answer):
    """The first steps with optim_core, compared with the same steps with torch.optim."""

    kind: Literal["audit"] = "audit"
    equal: bool
    """Whether all bits are equal."""
    steps: int
    optimizer: str
    """The kernel that optim_core used."""
    torch: str
    ended: dict[str, str | None]
    """For each optimizer, why its pass ended before the last step; null if it did not."""
    first_different_step: int | None
    """The step after which a weight differed for the first time."""
    n_tensors: int
    n_different: int
    largest_ulp: int | None
    tensors: list[AuditTensor]
    """Empty if the passes ended at different steps."""


class CheckLinks(Answer):
    """Paths of the check's resources."""

    self: str
    cancel: str
    job: str
    checkpoint: str | None


class Check(Answer):
    """A replay of a part of a job, to verify a checkpoint or to audit the optimizer."""

    id: UUID
    kind: Literal["verify", "audit"]
    state: ShownState
    phase: str | None
    attempt: int
    job_id: UUID
    """The job that is checked."""
    checkpoint_id: int | None
    """The checkpoint that is verified; null for an audit."""
    from_checkpoint_id: int | None
    """Where the replay starts; null for the job's start."""
    from_step: int
    to_step: int
    steps_done: int
    steps_total: int
    """Number of steps to compute; for an audit, those of both passes."""
    result: Annotated[VerifyResult | AuditResult, Field(discriminator="kind")] | None
    """Null until the check has succeeded, whatever it found."""
    error: Failure | None
    created_by: Creator | None
    """The API key that requested it; null if an earlier release did not record it."""
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    updated_at: Moment
    version: int
    """Increases with every change; the ETag is made of it."""
    links: CheckLinks


class CheckList(Answer):
    """Checks, newest first."""

    checks: list[Check]
