"""What the trainer of a check is given: the checkpoint that it starts from and the one that it looks at."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from jobs.errors import NotFound
from jobs.lifecycle.check import Task
from jobs.lifecycle.checkpoints import CheckpointRef
from jobs.states import Kind
from worker.restore import CheckpointDamaged, Pause, fetch, restore
from worker.training.messages import Audit, CheckpointFiles, Verify
from worker.verdict import error_document


class CannotCheck(Exception):
    """The check fails; `document` is its error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.document = error_document(code, message, retryable=False)


def inputs(engine: Engine, task: Task, folder: Path, pause: Pause) -> tuple[CheckpointFiles | None, Verify | Audit]:
    """The files to start from (None: the job's start), and what to do. `pause` as for `restore`. Raises CannotCheck."""
    if task.gone is not None:
        raise _gone(task.gone)
    if task.kind is Kind.AUDIT or task.subject is None:
        return None, Audit(steps=task.to_step)
    try:
        origin = None if task.origin is None else _origin(engine, task.origin, folder, pause)
        subject, intact = fetch(engine, task.subject, folder, pause)
    except NotFound:
        raise _gone(task.subject.id) from None
    final = task.subject_kind == "final"
    return origin, Verify(step=task.to_step, final=final, subject=subject, intact=intact, trained_by=task.fingerprints)


def _origin(engine: Engine, checkpoint: CheckpointRef, folder: Path, pause: Pause) -> CheckpointFiles:
    try:
        return restore(engine, checkpoint, folder, pause)
    except CheckpointDamaged as error:
        raise CannotCheck("checkpoint-corrupt", damaged_start(checkpoint, str(error))) from None


def damaged_start(checkpoint: CheckpointRef, why: str) -> str:
    """What a check says whose replay cannot start from this checkpoint."""
    return (
        f"checkpoint {checkpoint.id} of step {checkpoint.step}, where the replay starts, is damaged itself ({why}); "
        f"verify checkpoint {checkpoint.id}"
    )


def _gone(checkpoint_id: int) -> CannotCheck:
    return CannotCheck("checkpoint-gone", f"checkpoint {checkpoint_id} was deleted meanwhile; ask for the check again")
