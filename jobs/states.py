"""States of a job and the only list of its transitions.

`TRANSITIONS` is read by `jobs.lifecycle` (nothing else moves a job), by docs/job-states.md (generated from it)
and by the tests. The schema enforces the rest: a final state has finished_at, a running job has a lease.
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
    """A job's state as users see it: a running job that was asked to end or to pause says so."""

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
    """How an attempt ended: as its job did, or by a crash, a lost lease or a drain that put the job back."""

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
    """One permitted move. `event` is the kind of the event that is written in the same transaction."""

    source: State | None
    target: State
    event: str
    cause: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, State.QUEUED, "submitted", "a client submits a valid spec"),
    Transition(State.QUEUED, State.RUNNING, "started", "a worker claims it"),
    Transition(State.QUEUED, State.PAUSED, "paused", "pause of a job that waits"),
    Transition(State.QUEUED, State.CANCELLED, "cancelled", "cancel of a job that waits"),
    Transition(State.RUNNING, State.SUCCEEDED, "succeeded", "the last step is trained, evaluated and saved"),
    Transition(
        State.RUNNING,
        State.DIVERGED,
        "diverged",
        "a non-finite number, or a rule of the spec: an outcome",
    ),
    Transition(State.RUNNING, State.FAILED, "failed", "an error that a retry cannot mend, or max_attempts crashes"),
    Transition(State.RUNNING, State.CANCELLED, "cancelled", "cancel was requested, whatever became of the attempt"),
    Transition(
        State.RUNNING,
        State.PAUSED,
        "paused",
        "pause was requested and is saved, or the attempt ended otherwise",
    ),
    Transition(State.RUNNING, State.QUEUED, "requeued", "the attempt crashed or lost its lease, or its worker drained"),
    Transition(State.PAUSED, State.QUEUED, "resumed", "resume"),
    Transition(State.PAUSED, State.CANCELLED, "cancelled", "cancel of a paused job"),
    Transition(State.FAILED, State.QUEUED, "retried", "an explicit retry; resets the crash count"),
    Transition(State.CANCELLED, State.QUEUED, "retried", "an explicit retry; resets the crash count"),
)

_BY_MOVE = {(t.source, t.target): t for t in TRANSITIONS}


def transition(source: State | None, target: State) -> Transition:
    """The permitted move from `source` to `target`. Raises KeyError where there is none."""
    return _BY_MOVE[source, target]


ASKED = {Request.CANCEL: ShownState.CANCELLING, Request.PAUSE: ShownState.PAUSING}
"""How a running job shows what was asked of it."""


def shown(state: State, requested: Request) -> ShownState:
    """The state as users see it."""
    return ASKED.get(requested, ShownState(state))


VERBS = {
    "cancel": frozenset({ShownState.QUEUED, ShownState.RUNNING, ShownState.PAUSING, ShownState.PAUSED}),
    "pause": frozenset({ShownState.QUEUED, ShownState.RUNNING}),
    "resume": frozenset({ShownState.PAUSING, ShownState.PAUSED}),
    "retry": frozenset({ShownState.FAILED, ShownState.CANCELLED}),
}
"""What a user can ask of a job, and in which states it does something."""

FULFILLED = {
    "cancel": frozenset({ShownState.CANCELLING, ShownState.CANCELLED}),
    "pause": frozenset({ShownState.PAUSING, ShownState.PAUSED}),
}
"""In which states a verb has nothing left to do, whoever asked. (Resume and retry: see `jobs.lifecycle.asked`.)"""


def possible(state: ShownState, kind: Kind = Kind.TRAIN) -> tuple[str, ...]:
    """The verbs that do something in `state`; of a check there is only cancel."""
    verbs = VERBS if kind is Kind.TRAIN else ("cancel",)
    return tuple(verb for verb in verbs if state in VERBS[verb])
