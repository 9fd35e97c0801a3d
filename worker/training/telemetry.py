"""What the optimizer did in its last step, per param group, as metrics. The loop asks for it where it is due."""

from __future__ import annotations

from optim_core.telemetry import QUANTILES, GroupTelemetry
from worker.training.optimizer import Optimizer

RATE_KEYS = tuple(f"optimizer/rate_p{100 * quantile:02.0f}" for quantile in QUANTILES)


def telemetry(optimizer: Optimizer) -> dict[str, float]:
    """{metric key: value} of the step that was just measured; the keys of a group end as that of its learning rate."""
    return {
        f"{key}{group['metric_suffix']}": value
        for group, measured in zip(optimizer.param_groups, optimizer.measured or (), strict=True)
        for key, value in _values(measured).items()
    }


def _values(measured: GroupTelemetry) -> dict[str, float]:
    return {
        "optimizer/grad_norm": measured.grad_norm,
        "optimizer/update_norm": measured.update_norm,
        "optimizer/update_ratio": measured.update_ratio,
        **dict(zip(RATE_KEYS, measured.rate_quantiles or (), strict=False)),
    }
