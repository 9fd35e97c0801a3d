"""The entry of a trainer: from its job to its last message, whatever happens in between."""

from __future__ import annotations

import traceback

import torch

from traind.errors import TraindError
from worker.training.audit import audit
from worker.training.errors import OutOfMemory
from worker.training.loop import train
from worker.training.messages import Audit, Control, Failed, TrainerJob, Verify
from worker.training.outbox import Emit, serialised
from worker.training.verify import verify


def run(job: TrainerJob, emit: Emit, control: Control) -> None:
    """Train, or check. The last message is Finished, Checked, Stopped or Failed; what `emit` raises is passed on.

    `emit` is called from two threads, one call at a time.
    """
    emit = serialised(emit)
    try:
        _train_or_check(job, emit, control)
    except TraindError as error:
        failed = Failed(error.code, str(error), error.retryable, None)
    except Exception as error:
        failed = _failed(error)
    else:
        return
    emit(failed)


def _train_or_check(job: TrainerJob, emit: Emit, control: Control) -> None:
    match job.check:
        case None:
            train(job, emit, control)
        case Verify() as task:
            verify(job, task, emit, control)
        case Audit() as task:
            audit(job, task, emit, control)


def _failed(error: Exception) -> Failed:
    """An error that is not ours. torch says in a RuntimeError that the CPU's memory did not do."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return Failed(OutOfMemory.code, f"{text}; give a smaller batch_size or model", OutOfMemory.retryable, None)
    return Failed("trainer-error", text, False, traceback.format_exc())
