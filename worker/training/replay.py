"""A replay: steps of a job once more, by the loop that trained it, without its points and checkpoints.

Called by `verify` and `audit`. Signs of life and the position leave as from any training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from worker.training.divergence import Divergence
from worker.training.loop import steps
from worker.training.messages import Control, Message, Metrics, Phase, Progress, StopKind, TrainerJob
from worker.training.outbox import Emit, Outbox
from worker.training.session import Session


class Interrupted(Exception):
    """The replay was asked to stop; a check has nothing to save, its next attempt starts again."""

    def __init__(self, kind: StopKind, step: int) -> None:
        super().__init__(kind)
        self.kind, self.step = kind, step


def replay(
    job: TrainerJob,
    session: Session,
    emit: Emit,
    control: Control,
    *,
    to_step: int,
    done: int = 0,
    on_step: Callable[[], None] | None = None,
) -> str | None:
    """Train from where the session is to `to_step`, which is later; None, or why it ended before that.

    `done` steps were made by passes before this one; they count in the position. `on_step` is called after each step.
    Raises Interrupted.
    """
    emit(Phase("train"))
    length = job.resolved.model_copy(update={"total_steps": to_step})
    outbox = Outbox(_without_points(emit, done), session.recorder, length)
    try:
        for _ in steps(job, session, outbox):
            if on_step is not None:
                on_step()
            if session.step == to_step:
                break
            if (stop := control.stop) is not None:
                raise Interrupted(stop, done + session.step)
    except Divergence as divergence:
        return str(divergence)
    finally:
        outbox.flush()
    return None if session.step == to_step else f"early stopping ended it after step {session.step:,}"


def _without_points(emit: Emit, done: int) -> Emit:
    def filtered(message: Message) -> None:
        if isinstance(message, Progress):
            message = replace(message, step=done + message.step)
        if not isinstance(message, Metrics):
            emit(message)

    return filtered
