"""SGD, Adam and AdamW with torch's names, options and state, and an update of our own.

They subclass `torch.optim.Optimizer`: schedulers, hooks, `state_dict` and every tool that takes a torch optimizer
work on them, and a state dict travels between them and `torch.optim` in both directions. `optim_core.rules` holds
the mathematics. This package imports torch and the standard library only; the trainer uses it, and nothing here
knows jobs, data or models.

Errors: a bad option is a `ValueError` (or `TypeError`) with torch's words, before anything is written.
"""

from optim_core.adam import Adam, AdamW
from optim_core.native import backend
from optim_core.sgd import SGD
from optim_core.telemetry import GroupTelemetry

__all__ = ["SGD", "Adam", "AdamW", "GroupTelemetry", "backend"]
