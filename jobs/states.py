"""States of a job and the only list of its transitions.

`TRANSITIONS` is used by `jobs.lifecycle` (nothing else changes a job's state), by docs/job-states.md (generated from
it) and by the tests. The schema enforces the rest: a final state has finished_at, a running job has a lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ShownState(StrEnum):
    """A job's state as users see it: a running job shows that a cancel or a pause was requested."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    PAUSING = "pausing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """What a job is for: to train, or to check another job by a replay (`jobs.lifecycle.check`)."""

    TRAIN = "train"
    VERIFY = "verify"
    AUDIT = "audit"


class Request(StrEnum):
    """What a user asked of a running job; cleared when it leaves running. Cancel wins over pause."""

    NONE = "none"
    PAUSE = "pause"
    CANCEL = "cancel"


class Outcome(StrEnum):
    """How an attempt ended: like its job, or by a crash, a lost lease or a drain, and the job was queued again."""

    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    CRASHED = "crashed"
    LOST = "lost"
    DRAINED = "drained"


FINAL = frozenset({State.SUCCEEDED, State.DIVERGED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True)
class Transition:
    """A permitted transition. `event` is the kind of the event that is written in the same transaction."""

    source: State | None
    target: State
    event: str
    cause: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, State.QUEUED, "submitted", "a client submits a valid spec"),
    Transition(State.QUEUED, State.RUNNING, "started", "a worker claims it"),
    Transition(State.QUEUED, State.PAUSED, "paused", "pause of a waiting job"),
    Transition(State.QUEUED, State.CANCELLED, "cancelled", "cancel of a waiting job"),
    Transition(State.RUNNING, State.SUCCEEDED, "succeeded", "the last step is trained, evaluated and saved"),
    Transition(
        State.RUNNING,
        State.DIVERGED,
        "diverged",
        "a non-finite number, or a divergence rule of the spec: an outcome",
    ),
    Transition(State.RUNNING, State.FAILED, "failed", "an error that a retry cannot fix, or max_attempts crashes"),
    Transition(State.RUNNING, State.CANCELLED, "cancelled", "cancel was requested, however the attempt ended"),
    Transition(
        State.RUNNING,
        State.PAUSED,
        "paused",
        "pause was requested, and its checkpoint is saved or the attempt ended otherwise",
    ),
    Transition(State.RUNNING, State.QUEUED, "requeued", "the attempt crashed or lost its lease, or its worker drained"),
    Transition(State.PAUSED, State.QUEUED, "resumed", "resume"),
    Transition(State.PAUSED, State.CANCELLED, "cancelled", "cancel of a paused job"),
    Transition(State.FAILED, State.QUEUED, "retried", "an explicit retry; resets the crash count"),
    Transition(State.CANCELLED, State.QUEUED, "retried", "an explicit retry; resets the crash count"),
)

_BY_MOVE = {(t.source, t.target): t for t in TRANSITIONS}


def transition(source: State | None, target: State) -> Transition:
    """The permitted transition from `source` to `target`. Raises KeyError if there is none."""
    return _BY_MOVE[source, target]


ASKED = {Request.CANCEL: ShownState.CANCELLING, Request.PAUSE: ShownState.PAUSING}
"""The state that a running job shows for each request."""


def shown(state: State, requested: Request) -> ShownState:
    """The state as users see it."""
    return ASKED.get(requested, ShownState(state))


VERBS = {
    "cancel": frozenset({ShownState.QUEUED, ShownState.RUNNING, ShownState.PAUSING, ShownState.PAUSED}),
    "pause": frozenset({ShownState.QUEUED, ShownState.RUNNING}),
    "resume": frozenset({ShownState.PAUSING, ShownState.PAUSED}),
    "retry": frozenset({ShownState.FAILED, ShownState.CANCELLED}),
}
"""The verbs, and the states in which each does something."""

FULFILLED = {
    "cancel": frozenset({ShownState.CANCELLING, ShownState.CANCELLED}),
    "pause": frozenset({ShownState.PAUSING, ShownState.PAUSED}),
}
"""The states in which a verb has nothing left to do. (For resume and retry, see `jobs.lifecycle.asked`.)"""


def possible(state: ShownState, kind: Kind = Kind.TRAIN) -> tuple[str, ...]:
    """The verbs that do something in `state`; checks have only cancel."""
    verbs = VERBS if kind is Kind.TRAIN else ("cancel",)
    return tuple(verb for verb in verbs if state in VERBS[verb])
