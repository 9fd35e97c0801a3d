"""From the spec's optimizer to optim_core's, with its param groups."""

from __future__ import annotations

from torch import nn

from jobs.catalog.optimizers import param_groups
from optim_core import SGD, Adam
from traind import spec

Optimizer = SGD | Adam


def build_optimizer(
    optimizer: spec.Optimizer, model: nn.Module, *, sgd: type[SGD] = SGD, adam: type[Adam] = Adam
) -> Optimizer:
    """The optimizer over the model's parameters: optim_core's, but where an audit puts another in its place.

    Beside torch's options each group carries `metric_suffix`, by which the keys of its metrics end, and `initial_lr`
    (as torch's schedulers name it), which the schedule multiplies.
    """
    named = dict(model.named_parameters())
    groups = [
        {
            **group.options,
            "params": [named[name] for name in group.params],
            "metric_suffix": group.metric_suffix,
            "initial_lr": group.options["lr"],
        }
        for group in param_groups(optimizer, list(named))
    ]
    match optimizer:
        case spec.Sgd():
            return sgd(groups)
        case spec.Adam():
            return adam(groups)
