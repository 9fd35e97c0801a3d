"""Stochastic gradient descent with momentum: options, errors and state of `torch.optim.SGD`."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from optim_core.base import RuleOptimizer, number
from optim_core.gpu import GpuTable, Row
from optim_core.rules import sgd_update


class SGD(RuleOptimizer):
    """Gradient descent, optionally with (Nesterov) momentum, dampening and L2 weight decay; see `sgd_update`.

    Arguments, defaults and state key (`momentum_buffer`, only with momentum) are those of `torch.optim.SGD` 2.13:

    - params: parameters, (name, parameter) pairs, or dicts of a group's `params` and its options.
    - lr: learning rate, ≥ 0; a float or a 1-element tensor, read at each step.
    - momentum: ≥ 0; dampening: any; weight_decay: ≥ 0, a float or a 1-element tensor.
    - nesterov: needs momentum > 0 and dampening 0.
    - maximize: climb instead of descend.
    - foreach, fused: choose among torch's implementations; they mean nothing here and are kept for state dicts.
    - differentiable: must be False.

    Raises ValueError with torch's words for a value out of its range, and for differentiable=True; RuntimeError
    where foreach and fused are both True. Options of a single param group are not checked, as in torch.

    Known disagreements with torch: options that are tensors requiring grad are their values here. torch then takes
    another operation, which for such a `weight_decay` changes `param.grad` and for such an `lr` rounds bfloat16 and
    float16 once more.
    """

    rule = "SGD"
    flags = ("nesterov", "maximize", "differentiable")

    def __init__(  # noqa: PLR0917, torch's order
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if lr < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        if fused and foreach:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")

    def check_sparse(self, group: dict[str, Any]) -> None:
        if group["weight_decay"] != 0:
            raise RuntimeError("add(sparse, dense) is not supported. Use add(dense, sparse) instead.")

    def update_group(self, group: dict[str, Any], pairs: list[tuple[Tensor, Tensor]]) -> None:
        has_momentum = group["momentum"] != 0
        # All buffers before the first update: a parameter listed twice (torch warns) starts two, as in torch.
        buffers: list[Tensor | None] = [None] * len(pairs)
        if has_momentum:
            buffers = [self.state[param].get("momentum_buffer") for param, _ in pairs]
        lr, weight_decay = number(group["lr"]), number(group["weight_decay"])
        momentum, dampening = group["momentum"], group["dampening"]
        nesterov, maximize = group["nesterov"], group["maximize"]
        for (param, grad), momentum_buffer in zip(pairs, buffers, strict=True):
            buffer = sgd_update(
                param,
                grad,
                momentum_buffer,
                lr=lr,
                momentum=momentum,
                dampening=dampening,
                weight_decay=weight_decay,
                nesterov=nesterov,
                maximize=maximize,
            )
            if has_momentum:
                self.state[param]["momentum_buffer"] = buffer

    def update_on_gpu(self, table: GpuTable, rows: list[Row], scale: float | Tensor) -> None:
        table.sgd(rows, scale=scale)
