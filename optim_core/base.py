"""What SGD and Adam share: the walk over groups and gradients, and the options that are refused.

A subclass holds its options and errors and says how one group is updated; `torch.optim.Optimizer` keeps groups,
hooks, `state_dict` and `zero_grad`.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

REFUSED = {
    "differentiable": "the update is in place and outside autograd",
    "capturable": "the step count is read on the host, so a captured graph would replay one bias correction",
}


def refuse_unsupported(options: dict[str, Any]) -> None:
    """Raise ValueError where a param group asks torch for what this update can't do."""
    for name, reason in REFUSED.items():
        if options.get(name):
            raise ValueError(f"{name}={options[name]} is not supported by optim_core: {reason}. It must be False")


def number(value: float | Tensor) -> float:
    """The value of an option that may be a 1-element tensor, exactly."""
    return float(value.item()) if isinstance(value, Tensor) else value


class RuleOptimizer(torch.optim.Optimizer):
    """An optimizer that updates each parameter with a gradient by a rule of `optim_core.rules`.

    A parameter whose gradient is None is skipped: no decay, no momentum, no step counted. All gradients are checked
    before the first write, so a refused step has changed nothing.
    """

    flags: ClassVar[tuple[str, ...]]
    """Boolean options that a state dict from an older torch may lack; they are then False."""

    sparse_refusal: ClassVar[str | None] = None
    """Why sparse gradients raise RuntimeError; None where the rule takes them."""

    def update_group(self, group: dict[str, Any], pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Update the parameters of one group; `pairs` are its (parameter, gradient), in the group's order."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return the closure's loss, or None without one.

        `closure` clears the gradients, computes the loss and its gradients (run with grad enabled) and returns the
        loss.

        Raises RuntimeError for a sparse gradient where the rule can't take it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, [(p, p.grad) for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        for _, pairs in work:
            if self.sparse_refusal is not None and any(grad.is_sparse for _, grad in pairs):
                raise RuntimeError(self.sparse_refusal)
        for group, pairs in work:
            self.update_group(group, pairs)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own, as torch's; refused options are a ValueError."""
        if isinstance(param_group, dict):
            refuse_unsupported({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            refuse_unsupported(group)
        super().__setstate__(state)
        for group in self.param_groups:
            for flag in self.flags:
                group.setdefault(flag, False)
