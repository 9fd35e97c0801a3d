"""Errors of the jobs domain; `api.errors` maps their codes to HTTP.

    TraindError
    └── JobsError
        ├── NotFound              no such thing in this project
        ├── StateConflict         the job's state forbids the verb; says the state and what is possible
        ├── InUse                 something that has not ended needs what was to be deleted
        ├── IdempotencyConflict   the key was used before, with another body
        ├── Fenced                a worker's lease is no longer good: what it wanted to write is dropped
        ├── IncompleteUpload      a checkpoint was called complete before all its chunks were there
        ├── BlobNotComplete       a blob was read before it was complete
        ├── CheckpointNotComplete a checkpoint was to be verified before it was complete
        ├── AuditTooLarge         an audit would compute more than is done on demand
        ├── BadCursor             a list was continued with a cursor that we never gave
        └── CorruptMetrics        stored metric bytes that this release cannot read

Codes are kebab-case and stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jobs.states import ShownState
from traind.errors import TraindError


class JobsError(TraindError):
    """Root of the errors of the jobs domain."""

    code = "jobs-error"


GONE = {
    "checkpoint": (
        "; it may have been removed: of a job's interval checkpoints the newest `checkpoints.keep_last` stay, and any "
        "can be deleted. `traind checkpoints JOB` (GET /v1/jobs/{id}/checkpoints) lists those that are left"
    )
}
"""What NotFound adds for kinds of things that go by themselves."""


class NotFound(JobsError):
    """There is no `kind` with this id in the caller's project."""

    code = "not-found"

    def __init__(self, kind: str, ident: object) -> None:
        self.kind = kind
        self.ident = str(ident)
        super().__init__(f"there is no {kind} {ident}{GONE.get(kind, '')}")


class StateConflict(JobsError):
    """The state of the job, or of the check, forbids the verb."""

    code = "state-conflict"

    def __init__(self, verb: str, what: Literal["job", "check"], state: ShownState, possible: Sequence[str]) -> None:
        self.verb = verb
        self.state = state
        self.possible = tuple(possible)
        rest = f"; possible now: {', '.join(self.possible)}" if self.possible else ""
        super().__init__(f"cannot {verb} a {what} that is {state}{rest}")


class InUse(JobsError):
    """What was to be deleted is needed by something that has not ended; the message says by what."""

    code = "in-use"


class IdempotencyConflict(JobsError):
    """The idempotency key belongs to a job with another spec."""

    code = "idempotency-conflict"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the idempotency key {key!r} was used before with another body; use a new key")


class Fenced(JobsError):
    """The lease was lost: another attempt may be running. The caller must stop and write nothing more."""

    code = "fenced"


class IncompleteUpload(JobsError):
    """Chunks of the blob are missing, or have another size than was announced."""

    code = "incomplete-upload"
    retryable = True

    def __init__(self, blob_id: int) -> None:
        self.blob_id = blob_id
        super().__init__(f"the chunks of blob {blob_id} do not add up to its announced size")


class BlobNotComplete(JobsError):
    """The blob is still being uploaded."""

    code = "blob-not-complete"
    retryable = True

    def __init__(self, blob_id: int) -> None:
        self.blob_id = blob_id
        super().__init__(f"blob {blob_id} is still being uploaded")


class CheckpointNotComplete(JobsError):
    """The checkpoint is still being uploaded, or its upload was given up."""

    code = "checkpoint-incomplete"
    retryable = True

    def __init__(self, checkpoint_id: int) -> None:
        self.checkpoint_id = checkpoint_id
        super().__init__(f"checkpoint {checkpoint_id} is not complete; only a complete one can be verified")


class AuditTooLarge(JobsError):
    """The audit would compute more than is done on demand; the message has the numbers and the way out."""

    code = "audit-too-large"


class BadCursor(JobsError):
    """The cursor was not made by us, or was changed on the way."""

    code = "bad-cursor"

    def __init__(self) -> None:
        super().__init__("the cursor is not one that this list gave; start again without one")


class CorruptMetrics(JobsError):
    """Stored metric bytes that cannot be read: truncated, damaged, or written by a newer release."""

    code = "corrupt-metrics"
