"""The cases of exact resume: every way to train, times every moment at which it is cut.

`CASES` is the whole product, `PAIRS` a part of it in which any two values of two axes meet.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from allpairspy import AllPairs

from jobs.catalog import resolve
from tests.training.attempts import Attempt, Job, Wanted
from traind.spec import JobSpec
from worker.training.messages import Checkpoint, Metrics, Progress


class Cut(StrEnum):
    """When the trainer is killed; at an epoch's edge it goes on from exactly there."""

    RANDOM = "random"
    BEFORE_EDGE = "edge-1"
    AT_EDGE = "edge"
    AFTER_EDGE = "edge+1"
    EVALUATION = "evaluation"
    UPLOAD = "upload"


FROM_EDGE = {Cut.BEFORE_EDGE: -1, Cut.AT_EDGE: 0, Cut.AFTER_EDGE: 1}


class Length(NamedTuple):
    """Steps in all; the epochs to the edge; early stopping ends the run after patience + 1 evaluations."""

    batch_size: int | str
    steps: int
    epochs: int
    eval_every: int
    patience: int


LENGTHS = {
    "one": Length(1, 1_800, epochs=1, eval_every=400, patience=3),
    "some": Length(60, 110, epochs=1, eval_every=11, patience=7),
    "full": Length("full", 40, epochs=12, eval_every=4, patience=6),
}
"""Of digits' 1,442 samples, of which the last batch of 60 has two. A full batch is an epoch: each of its steps is an
edge."""
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.01},
    "momentum": {"name": "sgd", "lr": 0.002, "momentum": 0.9},
    "nesterov": {"name": "sgd", "lr": 0.002, "momentum": 0.9, "nesterov": True},
    "adam": {"name": "adam", "lr": 0.002, "weight_decay": 0.01},
    "amsgrad": {"name": "adam", "lr": 0.002, "amsgrad": True},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": {"warmup_steps": 9, "final_factor": 0.1},
    "cosine": {},
    "step": {"step_size": 4, "gamma": 0.99},
}
MODELS: dict[str, dict[str, Any]] = {"mlp": {"hidden": [16, 8]}, "cnn": {"channels": [4], "hidden": [8]}}
DROPOUT = ("dropout", "no_dropout")
STOPPING = ("early", "no_early")

LONG_EVALUATION: dict[str, dict[str, Any]] = {
    "mlp": {"dataset": {"name": "synthetic_classification", "n_samples": 100_000}},
    "cnn": {"model": {"name": "cnn", "channels": [16, 32], "hidden": [8]}},
}
"""Of some milliseconds, so that a kill lands within; after each of a few steps."""


class Case(NamedTuple):
    """One value of each axis."""

    optimizer: str
    schedule: str
    dropout: str
    stopping: str
    batch: str
    model: str
    cut: Cut

    @property
    def name(self) -> str:
        return "-".join(self)


AXES: tuple[tuple[str, ...], ...] = tuple(map(tuple, (OPTIMIZERS, SCHEDULES, DROPOUT, STOPPING, LENGTHS, MODELS, Cut)))
CASES = [Case._make(values) for values in product(*AXES)]
PAIRS = [Case._make(values) for values in AllPairs([list(axis) for axis in AXES])]


def parts_of(case: Case) -> dict[str, Any]:
    """The spec's parts, but for how often a checkpoint is taken."""
    parts: dict[str, Any] = {"dataset": {"name": "digits"}, "model": {"name": case.model} | MODELS[case.model]}
    length = LENGTHS[case.batch]
    if case.cut is Cut.EVALUATION:
        parts |= LONG_EVALUATION[case.model]
        length = length._replace(steps=10, eval_every=1, patience=6)
    training = {"batch_size": length.batch_size, "steps": length.steps, "eval_every": length.eval_every}
    training |= {"log_every": 8, "telemetry_every": 5, "seed": 3}
    if case.stopping == "early":
        training |= {"early_stopping": {"patience": length.patience, "min_delta": 1_000.0}}
    return {
        **parts,
        "model": parts["model"] | {"dropout": 0.3 if case.dropout == "dropout" else 0.0},
        "optimizer": OPTIMIZERS[case.optimizer],
        "schedule": {"name": case.schedule} | SCHEDULES[case.schedule],
        "training": training,
    }


def saving(parts: dict[str, Any], *, every: int) -> dict[str, Any]:
    """The same parts, with a checkpoint after every so many steps."""
    return parts | {"training": parts["training"] | {"checkpoint_every": every}}


def interrupted(case: Case, folder: Path) -> list[Attempt]:
    """The attempts of the case's job, killed as it says; the last one goes to the end."""
    parts, random = parts_of(case), Random(case.name)
    steps = parts["training"]["steps"]
    match case.cut:
        case Cut.RANDOM:
            job = Job(folder, saving(parts, every=random.randint(steps // 20, steps // 8)))
            job.kill(reached(random.randint(steps // 4, steps // 2)))
        case Cut.UPLOAD:
            every = random.randint(steps // 8, steps // 5)
            job = Job(folder, saving(parts, every=every))
            job.kill(saved(every * random.randint(1, 2)), torn=True)
        case Cut.EVALUATION:
            step = random.randint(2, 4)
            job = Job(folder, saving(parts, every=1))
            job.kill(saved(step))
            job.kill(reported(step + 1), landed=lambda attempt: isinstance(attempt.end, Progress))
        case _:
            job = Job(folder, saving(parts, every=edge(case)))
            job.kill(saved(edge(case)))
    job.finish()
    return job.attempts


def edge(case: Case) -> int:
    """The step at the epoch's edge, or beside it, that the case goes on from."""
    resolved = resolve(JobSpec.model_validate(parts_of(case)))
    return LENGTHS[case.batch].epochs * resolved.steps_per_epoch + FROM_EDGE[case.cut]


def reached(step: int) -> Wanted:
    """A message that tells of this step or a later one."""
    return lambda message: isinstance(message, Metrics) and message.step1 >= step


def reported(step: int) -> Wanted:
    """The sign of life after this step's update, of which nothing but its evaluation follows.

    An attempt's first step always gives one. What the trainer sends next is the evaluation's point, with a checkpoint.
    """
    return lambda message: isinstance(message, Progress) and message.step == step


def saved(step: int) -> Wanted:
    """The checkpoint of this step."""
    return lambda message: isinstance(message, Checkpoint) and message.step == step
