"""Trainer jobs for the tests, and what became of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jobs.catalog import resolve
from traind.spec import JobSpec
from worker.training.messages import (
    Checkpoint,
    CheckpointFiles,
    Control,
    DataSettings,
    Finished,
    Message,
    Metrics,
    TrainerJob,
)
from worker.training.run import run

M = TypeVar("M", bound=Message)
NOWHERE = Path("/nonexistent")


def trainer_job(scratch_dir: Path, checkpoint: CheckpointFiles | None = None, **parts: Any) -> TrainerJob:
    """A job on one thread: a small MLP on digits by SGD, but for the parts given."""
    base = {"dataset": {"name": "digits"}, "model": {"name": "mlp", "hidden": [16]}, "optimizer": {"name": "sgd"}}
    parts["training"] = {"threads": 1} | parts.get("training", {})
    spec = JobSpec.model_validate(base | parts)
    scratch_dir.mkdir(parents=True, exist_ok=True)
    settings = DataSettings(fashion_mnist_dir=NOWHERE, cache_dir=NOWHERE)
    return TrainerJob(
        spec=spec, resolved=resolve(spec), scratch_dir=scratch_dir, checkpoint=checkpoint, settings=settings
    )


class Heard:
    """A trainer's messages, in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    @property
    def end(self) -> Message:
        return self.messages[-1]

    @property
    def finished(self) -> Finished:
        assert isinstance(self.end, Finished), self.end
        return self.end

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    def checkpoint(self, step: int) -> Checkpoint:
        (found,) = [message for message in self.all(Checkpoint) if message.step == step]
        return found

    def points(self, key: str) -> dict[int, float]:
        """{step: value}; no step twice."""
        found: dict[int, float] = {}
        for message in self.all(Metrics):
            if column := message.columns.get(key):
                assert not found.keys() & set(column["steps"])
                found |= dict(zip(column["steps"], column["values"], strict=True))
        return found

    def metric_keys(self) -> set[str]:
        return {key for message in self.all(Metrics) for key in message.columns}


class Trained(Heard):
    """A run in this process."""

    def __init__(self, job: TrainerJob, *, on_message: Callable[[Message, Control], None] | None = None) -> None:
        super().__init__()
        control = Control()

        def emit(message: Message) -> None:
            self.messages.append(message)
            if on_message is not None:
                on_message(message, control)

        run(job, emit, control)


def files(checkpoint: Checkpoint, folder: Path | None = None) -> CheckpointFiles:
    """Its files, copied to `folder` as an upload would do."""
    paths = Path(checkpoint.model_path), Path(checkpoint.state_path)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        paths = Path(shutil.copy(paths[0], folder)), Path(shutil.copy(paths[1], folder))
    return CheckpointFiles(model_path=paths[0], state_path=paths[1])
