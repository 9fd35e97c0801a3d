"""Schedules against torch's own, counted in steps."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter
from torch.optim import lr_scheduler

from traind.spec import Schedule
from worker.training.schedule import multiplier, set_rates

SCHEDULE: TypeAdapter[Schedule] = TypeAdapter(Schedule)
TOTAL, WARMUP = 23, 4


def rates(theirs: type[lr_scheduler.LRScheduler], **options: float) -> list[float]:
    """torch's learning rate in each step after the warm-up, from 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = theirs(optimizer, **options)  # type: ignore[arg-type]
    found = []
    for _ in range(TOTAL - WARMUP):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("constant", {}, rates(lr_scheduler.ConstantLR, factor=1.0)),
        (
            "linear",
            {"final_factor": 0.1},
            rates(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.1, total_iters=TOTAL - WARMUP),
        ),
        ("cosine", {}, rates(lr_scheduler.CosineAnnealingLR, T_max=TOTAL - WARMUP)),
        ("cosine", {"final_factor": 0.2}, rates(lr_scheduler.CosineAnnealingLR, T_max=TOTAL - WARMUP, eta_min=0.2)),
        ("step", {"step_size": 5, "gamma": 0.5}, rates(lr_scheduler.StepLR, step_size=5, gamma=0.5)),
    ],
)
def test_after_the_warm_up_it_is_torchs(name: str, options: dict[str, float], theirs: list[float]) -> None:
    schedule = SCHEDULE.validate_python({"name": name, "warmup_steps": WARMUP} | options)
    ours = [multiplier(schedule, step, TOTAL) for step in range(1, TOTAL + 1)]
    assert ours[:WARMUP] == [0.25, 0.5, 0.75, 1.0]
    assert ours[WARMUP:] == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_the_warm_up_may_take_the_whole_run(name: str) -> None:
    schedule = SCHEDULE.validate_python({"name": name, "warmup_steps": TOTAL})
    assert multiplier(schedule, TOTAL, TOTAL) == 1.0


def test_each_group_keeps_its_own_rate() -> None:
    tensors = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    groups = [{"params": [t], "lr": lr, "initial_lr": lr} for t, lr in zip(tensors, (0.1, 0.3), strict=True)]
    optimizer = torch.optim.SGD(groups)
    set_rates(optimizer, 0.5)
    set_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.15]
