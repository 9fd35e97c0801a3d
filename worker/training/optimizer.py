"""From the spec's optimizer to optim_core's, with its param groups."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

import optim_core
from jobs.catalog.optimizers import param_groups
from traind import spec


def build_optimizer(optimizer: spec.Optimizer, model: nn.Module) -> Optimizer:
    """optim_core's optimizer over the model's parameters.

    Beside torch's options each group carries `lr_key`, the metric key of its rate, and `initial_lr` (as torch's
    schedulers name it), which the schedule multiplies.
    """
    named = dict(model.named_parameters())
    groups = [
        {
            **group.options,
            "params": [named[name] for name in group.params],
            "lr_key": group.lr_key,
            "initial_lr": group.options["lr"],
        }
        for group in param_groups(optimizer, list(named))
    ]
    match optimizer:
        case spec.Sgd():
            return optim_core.SGD(groups)
        case spec.Adam():
            return optim_core.Adam(groups)
