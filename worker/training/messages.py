"""The protocol between a trainer and whoever runs it (the worker's slot, or `python -m worker.training`).

A message is a frozen dataclass and travels as one JSON object: `{"type": ..., <its fields>}`. Floats round-trip; NaN
and infinities are written as Python's json writes them. Nothing is pickled.

    from the trainer   Phase, Ready, Progress, Metrics, Checkpoint, and as its last one Finished, Checked (of a check),
                       Stopped or Failed
    to the trainer     RunUntil (heeded by the child's own timer), Stop; cancel is a SIGKILL and no message

Steps count optimizer updates from 1; step 0 is the state before the first. `TrainerJob` is all that a trainer is
told at its start.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from traind.spec import JobSpec, Part, Resolved

PhaseName = Literal["load", "train", "evaluate", "checkpoint", "compare"]
CheckpointKind = Literal["interval", "final", "pause", "drain"]
StopKind = Literal["pause", "drain", "limit"]
"""limit: the time that an attempt may take is nearly over; its checkpoint is of kind drain."""
FilePart = Literal["model", "state"]
Summary = dict[str, Any]
"""{"last": {key: value}, "best": {key: {"value": v, "step": s}}} and, of a run that ended before its last
step, "stopped_early": true.

A last value may be NaN or infinite, as the points are; a best one is always finite.
"""


@dataclass(frozen=True)
class Phase:
    """What the trainer does from now on."""

    name: PhaseName


@dataclass(frozen=True)
class Ready:
    """Data, model and optimizer are built and, where there is a checkpoint, restored."""

    fingerprint: dict[str, Any]
    n_parameters: int
    step: int
    """The step that training goes on from: 0, or the checkpoint's."""
    differences: list[str]
    """How this machine's fingerprint differs from the checkpoint's; empty: the resume is exact."""


@dataclass(frozen=True)
class Progress:
    """Sign of life and position, at most about four a second."""

    step: int
    phase: PhaseName
    rate: float | None
    """Steps per second, lately; None before the second report."""
    eta_seconds: float | None
    evaluated: int
    """Evaluation batches done since the start of the attempt."""


@dataclass(frozen=True)
class Metrics:
    """Points of step0 to step1, both included. Those up to step S are sent before the checkpoint of S."""

    step0: int
    step1: int
    columns: dict[str, dict[str, list[Any]]]
    """{key: {"steps": [int], "times": [seconds since the attempt's start], "values": [float]}}."""
    summary: Summary


@dataclass(frozen=True)
class Checkpoint:
    """Two complete files in the scratch folder; whoever receives this owns them."""

    step: int
    kind: CheckpointKind
    model_path: str
    state_path: str
    model_size: int
    state_size: int
    model_sha256: str
    state_sha256: str
    summary: Summary
    needed: int | None = None
    """Step of an earlier checkpoint that a divergence under watch would name as the last good one."""


@dataclass(frozen=True)
class Finished:
    """The end of a run that reached an outcome."""

    state: Literal["succeeded", "diverged"]
    step: int
    """Last completed step; for a divergence the step that met it, whose update was not made (but where it is the
    update that diverged).
    """
    summary: Summary
    error: dict[str, Any] | None
    """Of a divergence: code, message, step, cause, rule, tensor, last_checkpoint_step."""


@dataclass(frozen=True)
class Checked:
    """The end of a check, whatever it found: `worker.training.verify` and `audit` say what `result` holds."""

    step: int
    """Where the replay ended; a second pass counts on."""
    result: dict[str, Any]


@dataclass(frozen=True)
class Stopped:
    """The end of a run that was asked to stop; the checkpoint of `step` was sent before."""

    kind: StopKind
    step: int


@dataclass(frozen=True)
class Failed:
    """The end of a run that could not go on. `traceback` is None where the message says it all."""

    code: str
    message: str
    retryable: bool
    traceback: str | None


@dataclass(frozen=True)
class RunUntil:
    """The trainer may run until this time of CLOCK_BOOTTIME, in seconds."""

    boottime: float


@dataclass(frozen=True)
class Stop:
    """Take a checkpoint at the next safe point and stop; None takes that back, if the trainer has not stopped yet."""

    kind: StopKind | None


Message = Phase | Ready | Progress | Metrics | Checkpoint | Finished | Checked | Stopped | Failed | RunUntil | Stop

_TYPES: dict[str, type[Message]] = {
    "phase": Phase,
    "ready": Ready,
    "progress": Progress,
    "metrics": Metrics,
    "checkpoint": Checkpoint,
    "finished": Finished,
    "checked": Checked,
    "stopped": Stopped,
    "failed": Failed,
    "run_until": RunUntil,
    "stop": Stop,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}


def encode(message: Message) -> bytes:
    """One JSON object, without a newline."""
    return json.dumps({"type": _NAMES[type(message)], **vars(message)}, separators=(",", ":")).encode()


def decode(data: bytes) -> Message:
    """The inverse of `encode`. Raises ValueError, KeyError or TypeError for what `encode` did not make."""
    fields = json.loads(data)
    return _TYPES[fields.pop("type")](**fields)


class DataSettings(Part):
    """Where datasets may be found; the worker's settings decide, never the spec."""

    fashion_mnist_dir: Path
    cache_dir: Path
    fashion_mnist_url: str | None = None


class CheckpointFiles(Part):
    """The two files of a complete checkpoint."""

    model_path: Path
    state_path: Path
    model_sha256: str | None = None
    """Hexadecimal, of what was downloaded; None where nobody said."""
    state_sha256: str | None = None


class Verify(Part):
    """Replay the job to a checkpoint, and compare."""

    kind: Literal["verify"] = "verify"
    step: int
    final: bool
    """Whether it is the checkpoint at the end of the run."""
    subject: CheckpointFiles
    """As they were stored, damaged or not."""
    intact: dict[FilePart, bool]
    """Whether each file has the SHA-256 that it was stored with."""
    trained_by: tuple[dict[str, Any], ...]
    """Fingerprints of the attempts that trained these steps."""


class Audit(Part):
    """Replay the first steps of the job by optim_core and by torch.optim, and compare."""

    kind: Literal["audit"] = "audit"
    steps: int


class TrainerJob(Part):
    """All that a trainer is told: JSON by `model_dump_json`, back by `model_validate_json`."""

    spec: JobSpec
    resolved: Resolved
    scratch_dir: Path
    checkpoint: CheckpointFiles | None = None
    settings: DataSettings
    check: Annotated[Verify | Audit, Field(discriminator="kind")] | None = None
    """What to replay and compare, instead of training."""


class Control:
    """What is asked of a running trainer: set from any thread, heeded at the next safe point."""

    def __init__(self) -> None:
        self.stop: StopKind | None = None
