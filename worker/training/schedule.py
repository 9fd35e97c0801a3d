"""Learning-rate schedules: a pure function of the step, so that a resumed run needs no state of theirs."""

from __future__ import annotations

from math import cos, pi

from torch.optim import Optimizer

from traind.spec import Constant, Cosine, LinearDecay, Schedule, StepDecay


def multiplier(schedule: Schedule, step: int, total_steps: int) -> float:
    """What the learning rate is multiplied by in step `step` (from 1) of `total_steps`.

    Warm-up: step / warmup_steps, so 1 in its last step. After it, with t = 0, 1, ... and T steps to go: torch's
    LinearLR (1 to final_factor, total_iters T), CosineAnnealingLR (T_max T) and StepLR.
    """
    if step <= schedule.warmup_steps:
        return step / schedule.warmup_steps
    t, whole = step - schedule.warmup_steps - 1, total_steps - schedule.warmup_steps
    match schedule:
        case Constant():
            return 1.0
        case LinearDecay(final_factor=final):
            return 1.0 + (final - 1.0) * t / whole
        case Cosine(final_factor=final):
            return final + (1.0 - final) * (1.0 + cos(pi * t / whole)) / 2.0
        case StepDecay(gamma=gamma, step_size=size):
            return float(gamma ** (t // size))


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Give every param group its initial learning rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
