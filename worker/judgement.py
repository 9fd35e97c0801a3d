"""What an attempt's ending is when the trainer does not say so itself: it takes too long, or it is gone."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from jobs.states import State
from worker import output
from worker.trainer import Trainer
from worker.verdict import Crash, Ending, Finish, error_document

GONE_SECONDS = 5.0
"""How long a trainer that closed its pipe may take to end."""


def limit_reached(limit: int | None, step: int | None = None) -> Finish:
    """The job fails; its checkpoints stay, the one of `step` too, which was taken for it."""
    message = f"the attempt ran longer than max_runtime_seconds ({limit})"
    if step is not None:
        message = f"the attempt reached max_runtime_seconds ({limit}); a retry goes on from step {step:,}"
    return Finish(State.FAILED, summary={}, error=error_document("max-runtime", message, retryable=False))


def ask_seconds(limit: int, seconds_per_step: float) -> float:
    """After how many seconds of an attempt that may take `limit` its trainer is asked for a last checkpoint.

    What is left is a tenth, within bounds, and two steps, for the safe point comes after the next one.
    """
    spare = max(min(30.0, max(0.5, limit / 10)), 2 * seconds_per_step)
    return limit - min(limit / 2, spare)


def over_time(seconds: float, limit: int | None) -> Ending | None:
    """After `seconds` of an attempt that may take `limit`: the job fails; its checkpoints stay."""
    if limit is None or seconds <= limit:
        return None
    return limit_reached(limit)


def stalled(
    trainer: Trainer, *, listening_since: float | None, uploading_since: float | None, timeout_seconds: float
) -> Ending | None:
    """A trainer that is silent, or a chunk that does not arrive, for longer than the timeout. Times are monotonic."""
    if listening_since is not None and trainer.silence(listening_since) > timeout_seconds:
        return Crash(error_document("trainer-stalled", f"the trainer was silent for {timeout_seconds:g} s"))
    if uploading_since is not None and time.monotonic() - uploading_since > timeout_seconds:
        return Crash(error_document("upload-stalled", f"a checkpoint's upload stood still for {timeout_seconds:g} s"))
    return None


def gone(trainer: Trainer, log: Path) -> Ending:
    """A trainer that closed its pipe without a last message: by which signal or code, and what it printed last."""
    how = trainer.wait(GONE_SECONDS)
    code, message = "trainer-crashed", f"the trainer {how or 'closed its pipe and went on'}"
    if how is not None and how.signal is signal.SIGKILL:
        code, message = "trainer-killed", "the trainer was killed by SIGKILL; mostly that is the kernel, out of memory"
        if trainer.ran_out:
            code, message = "lease-expired", "the lease could not be renewed in time"
    name = how.signal.name if how is not None and how.signal is not None else None
    return Crash(error_document(code, message, signal=name, output=output.excerpt(output.read(log))))
