"""What a step costs, and how many threads that is worth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.catalog import resolve
from jobs.catalog.cost import FLOPS_PER_THREAD, step_flops, threads_worth
from traind.spec import JobSpec
from worker.training.models import build_model

CNN = {"name": "cnn", "channels": [16, 32], "hidden": [64]}


def spec(model: dict[str, Any], batch_size: Any = 32) -> JobSpec:
    parts = {"dataset": {"name": "digits"}, "optimizer": {"name": "adam"}, "training": {"batch_size": batch_size}}
    return JobSpec.model_validate(parts | {"model": model})


@pytest.mark.parametrize("model", [{"name": "linear"}, {"name": "mlp", "hidden": [300, 20]}, CNN], ids=str)
def test_it_is_three_times_what_torch_counts_forward(model: dict[str, Any]) -> None:
    job = spec(model, 16)
    resolved = resolve(job)
    built = build_model(job.model, resolved.input_shape, resolved.n_outputs)
    with FlopCounterMode(display=False) as counter:
        built(torch.zeros(16, *resolved.input_shape))
    assert step_flops(job, resolved) == 3 * counter.get_total_flops()


@pytest.mark.parametrize(("model", "batch_size", "worth"), [
    ({"name": "linear"}, 1, 1),
    ({"name": "mlp", "hidden": [128]}, 32, 1),
    ({"name": "mlp", "hidden": [128]}, "full", 1),
    (CNN, 32, 1),
    (CNN, 256, 2),
    ({"name": "mlp", "hidden": [2048]}, 32, 1),
    ({"name": "mlp", "hidden": [2048, 2048]}, 32, 16),
])  # fmt: skip
def test_small_steps_get_one_thread(model: dict[str, Any], batch_size: Any, worth: int) -> None:
    job = spec(model, batch_size)
    resolved = resolve(job)
    assert [threads_worth(job, resolved, cores) for cores in (1, 2, 64)] == [1, min(2, worth), worth]
    assert step_flops(job, resolved) // FLOPS_PER_THREAD in ({0, 1} if worth == 1 else {worth})
