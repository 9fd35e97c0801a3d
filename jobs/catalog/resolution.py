"""From a spec to what will run: every rule that needs dataset, model and optimizer together."""

from __future__ import annotations

from math import ceil, prod
from typing import Literal

from jobs.catalog.architecture import architecture
from jobs.catalog.datasets import DatasetFacts, facts
from jobs.catalog.memory import estimate
from jobs.catalog.models import layers, parameter_shapes
from jobs.catalog.optimizers import param_groups
from jobs.catalog.shapes import Shape, output_shape
from traind.errors import InvalidSpec, Problem
from traind.spec import INT32_MAX, BatchNorm1dLayer, BatchNorm2dLayer, Device, JobSpec, Layer, Resolved

_DEVICES: dict[Device, Literal["cpu", "cuda"] | None] = {Device.AUTO: None, Device.CPU: "cpu", Device.CUDA: "cuda"}


def resolve(spec: JobSpec) -> Resolved:
    """What the spec amounts to: shapes, counts, steps. Raises InvalidSpec with every problem that could be found."""
    data = facts(spec.dataset)
    problems: list[Problem] = []
    batch_size = _batch_size(spec, data, problems)
    steps_per_epoch = ceil(data.n_train / batch_size)
    total_steps = _total_steps(spec, steps_per_epoch, problems)
    _check_metric(spec, data, problems)
    n_parameters, described = 0, None
    try:
        model = layers(spec.model, data.input_shape, data.n_outputs)
        shapes = parameter_shapes(model, data.input_shape)
        n_parameters = sum(map(prod, shapes.values()))
        _check_batch_norm(model, data, batch_size, total_steps, problems)
        param_groups(spec.optimizer, list(shapes))
        described = architecture(data, model)
    except InvalidSpec as invalid:
        problems += invalid.problems
    if problems:
        raise InvalidSpec(problems)
    resolved = Resolved(
        dataset_sha256=data.sha256,
        input_shape=data.input_shape,
        n_outputs=data.n_outputs,
        loss=data.loss,
        n_train=data.n_train,
        n_validation=data.n_validation,
        n_parameters=n_parameters,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        eval_every=spec.training.eval_every or steps_per_epoch,
        device=_DEVICES[spec.resources.device],
        threads=spec.training.threads,
        model=described,
    )
    on_gpu = spec.resources.device is Device.CUDA
    return resolved.model_copy(update={"memory_bytes": None if on_gpu else estimate(spec, resolved).peak_bytes})


def _batch_size(spec: JobSpec, data: DatasetFacts, problems: list[Problem]) -> int:
    wanted = spec.training.batch_size
    if wanted == "full":
        return data.n_train
    if wanted > data.n_train:
        reason = (
            f'{wanted} is more than the {data.n_train} training samples of {data.name}; give "full" for all of them'
        )
        problems.append(Problem("/training/batch_size", "rule", reason))
    return wanted


def _total_steps(spec: JobSpec, steps_per_epoch: int, problems: list[Problem]) -> int:
    training = spec.training
    total = training.steps or steps_per_epoch * (training.epochs or 1)
    if total > INT32_MAX:
        reason = f"{training.epochs:,} epochs of {steps_per_epoch:,} steps are {total:,} steps; at most {INT32_MAX:,}"
        problems.append(Problem("/training/epochs", "rule", reason))
    if spec.schedule.warmup_steps > total:
        reason = f"a warm-up of {spec.schedule.warmup_steps:,} steps is longer than the run of {total:,}"
        problems.append(Problem("/schedule/warmup_steps", "rule", reason))
    return total


def _check_metric(spec: JobSpec, data: DatasetFacts, problems: list[Problem]) -> None:
    stopping = spec.training.early_stopping
    if stopping is not None and stopping.metric == "val/accuracy" and data.loss == "mse":
        reason = f"{data.name} is a regression and has no accuracy; give val/loss"
        problems.append(Problem("/training/early_stopping/metric", "rule", reason))


def _check_batch_norm(
    model: tuple[Layer, ...], data: DatasetFacts, batch_size: int, total_steps: int, problems: list[Problem]
) -> None:
    """torch's batch norm refuses to train on one value per channel: a batch of 1, an epoch's last batch too."""
    last, steps_before = data.n_train % batch_size, data.n_train // batch_size
    if batch_size == 1:
        which = "a batch has"
    elif last == 1 and total_steps > steps_before:
        which = f"the last batch of an epoch ({data.n_train} samples in batches of {batch_size}) has"
    else:
        return
    shape: Shape = data.input_shape
    for index, layer in enumerate(model):
        if isinstance(layer, BatchNorm1dLayer | BatchNorm2dLayer) and prod(shape[1:]) == 1:
            reason = f"{which} 1 sample, but layer {index} ({layer.type}) needs at least 2 to train on"
            problems.append(Problem("/training/batch_size", "rule", reason))
            return
        shape = output_shape(layer, shape)
