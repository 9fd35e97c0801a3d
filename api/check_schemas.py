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
    """`model/` and its name in the weights, or `state/` and its name in the rest."""
    problem: Literal["values", "missing", "unexpected", "kind"]
    """Of the stored one: it has other values, is not there, should not be there, or has another shape or type."""
    n_elements: int | None = None
    n_different: int | None = None
    first_index: list[int] | None = None
    """Where the first different element stands."""
    stored: float | str | None = None
    """That element (null if it is not a finite number), or the shape and type."""
    replayed: float | str | None = None
    largest_difference: float | None = None
    """Null if it is not a finite number."""


class Intact(Answer):
    """Whether each file has the SHA-256 that it was stored with."""

    model: bool
    state: bool


class VerifyResult(Answer):
    """A checkpoint beside a replay from the checkpoint before it."""

    kind: Literal["verify"] = "verify"
    equal: bool
    """The replay gives every bit of the checkpoint, and its files are as they were stored."""
    exact: bool
    """This machine gives the bits of the one that trained. Where not, a difference proves no damage."""
    reasons: list[str]
    """Why it is not exact."""
    intact: Intact
    unreadable: dict[str, str]
    """Files that are no checkpoint any more, and why."""
    ended: str | None
    """Why the replay did not come to the checkpoint's step; null if it did."""
    n_tensors: int
    n_different: int
    differences: list[TensorDifference]
    """The first of them, weights before the rest."""
    rest: list[str]
    """What differs beside the tensors: step, open metric windows, early stopping."""


class AuditTensor(Answer):
    """One weight or one tensor of the optimizer's state after the last step."""

    tensor: str
    n_elements: int
    n_different: int
    largest_ulp: int | None
    """Units in the last place; null if one of two values is NaN."""
    largest_difference: float | None


class AuditResult(Answer):
    """The first steps by optim_core beside the same by torch.optim."""

    kind: Literal["audit"] = "audit"
    equal: bool
    """All bits are equal."""
    steps: int
    optimizer: str
    """Which kernel of optim_core it was."""
    torch: str
    ended: dict[str, str | None]
    """By optimizer, why its pass ended before the last step; null if it did not."""
    first_different_step: int | None
    """The step after which a weight differed for the first time."""
    n_tensors: int
    n_different: int
    largest_ulp: int | None
    tensors: list[AuditTensor]
    """Empty if the passes ended at different steps."""


class CheckLinks(Answer):
    """Paths of what belongs to the check."""

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
    """Steps to compute: of an audit those of both passes."""
    result: Annotated[VerifyResult | AuditResult, Field(discriminator="kind")] | None
    """Null until the check has succeeded, whatever it found."""
    error: Failure | None
    created_by: Creator | None
    """The API key that asked for it; null if a release before did not say."""
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    updated_at: Moment
    version: int
    """Grows with every change; the ETag."""
    links: CheckLinks


class CheckList(Answer):
    """Checks, newest first."""

    checks: list[Check]
