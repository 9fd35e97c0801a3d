"""Adam, AMSGrad and AdamW: options, errors and state of `torch.optim.Adam` and `torch.optim.AdamW`."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optim_core import native
from optim_core.base import Left, RuleOptimizer, number
from optim_core.gpu import GpuTable, Row
from optim_core.rules import adam_update, ieee_sqrt
from optim_core.telemetry import QUANTILES

SAMPLE = 2048
"""Elements of a group, about, whose rates `rate_quantiles` looks at."""


class Adam(RuleOptimizer):
    """Adam, optionally AMSGrad, with L2 or decoupled weight decay; see `adam_update`.

    Arguments, defaults and state keys (`step`, `exp_avg`, `exp_avg_sq`, with amsgrad `max_exp_avg_sq`) are those of
    `torch.optim.Adam` 2.13:

    - params: parameters, (name, parameter) pairs, or dicts of a group's `params` and its options.
    - lr: learning rate, ≥ 0; a float or a 1-element tensor, read at each step.
    - betas: two floats or two 1-element tensors, in [0, 1); eps: ≥ 0; weight_decay: ≥ 0.
    - amsgrad: divide by the largest second moment so far; maximize: climb instead of descend.
    - decoupled_weight_decay: decay the parameter itself (AdamW) instead of adding to its gradient.
    - foreach, fused: choose among torch's implementations; they mean nothing here and are kept for state dicts.
    - capturable, differentiable: must be False.

    Raises ValueError with torch's words for a value out of its range, and for capturable or differentiable=True;
    RuntimeError where foreach and fused are both True, and in `step` for a sparse gradient. Options of a single
    param group are not checked, as in torch.

    Known disagreement of the native kernel with torch: with beta1 = 0 the sign of a zero in exp_avg, which in torch
    depends on the element's place.
    """

    rule = "ADAM"
    # Where the native kernel runs, a parameter that it leaves to the rule gets the same bits.
    sqrt = staticmethod(torch.sqrt if native.kernel is None else ieee_sqrt)
    flags = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")

    def __init__(  # noqa: PLR0917, torch's order
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check_options(lr, betas, eps, weight_decay, plain_foreach=bool(foreach) and not capturable)
        defaults = {
            "lr": lr,
            "betas": tuple(map(squeezed, betas)),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)
        if fused and foreach:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        settle_sqrt()

    def check_sparse(self, group: dict[str, Any]) -> None:
        del group
        raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")

    def _check(self, rows: list[Left]) -> None:
        super()._check(rows)
        for group, param, _ in rows:
            entry = self.state.get(param)
            if entry:  # a key that was lost is torch's KeyError, before anything is written
                _ = entry["step"], entry["exp_avg"], entry["exp_avg_sq"], group["amsgrad"] and entry["max_exp_avg_sq"]
        if any(param.is_cuda for _, param, _ in rows):
            self._accelerator_graph_capture_health_check()

    def update_group(self, group: dict[str, Any], pairs: list[tuple[Tensor, Tensor]]) -> None:
        beta1, beta2 = group["betas"]
        options = {key: group[key] for key in ("eps", "weight_decay", "maximize", "decoupled_weight_decay")}
        options |= {"lr": squeezed(group["lr"]), "beta1": squeezed(beta1), "beta2": squeezed(beta2)}
        for param, grad in pairs:
            state = self.state[param]
            if not state:
                state.update(new_state(param, amsgrad=group["amsgrad"]))
            max_exp_avg_sq = state["max_exp_avg_sq"] if group["amsgrad"] else None
            step = state["step"]
            step += 1
            adam_update(
                param,
                grad,
                state["exp_avg"],
                state["exp_avg_sq"],
                max_exp_avg_sq,
                step=step.item(),
                sqrt=self.sqrt,
                **options,
            )

    def update_on_gpu(self, table: GpuTable, rows: list[Row], scale: float | Tensor) -> None:
        table.adam(rows, scale=scale)

    def gpu_state(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[param]
        if not state:
            state.update(new_state(param, amsgrad=group["amsgrad"]))
            if group["capturable"]:
                state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
        return state

    def rate_quantiles(self, group: dict[str, Any]) -> tuple[float, ...] | None:
        entries = [self.state[param] for param in group["params"] if self.state.get(param)]
        entries = [entry for entry in entries if entry["exp_avg_sq"].numel() and entry["step"].item() > 0]
        if not entries:
            return None
        (beta1, beta2), lr = map(number, group["betas"]), number(group["lr"])
        every = -(-sum(entry["exp_avg_sq"].numel() for entry in entries) // SAMPLE)
        rates = []
        for entry in entries:
            second = entry["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
            sample = torch.view_as_real(second) if second.is_complex() else second
            step = entry["step"].item()
            denom = sample.reshape(-1)[::every].double().sqrt() / (1 - beta2**step) ** 0.5 + group["eps"]
            rates.append((lr / (1 - beta1**step) / denom).cpu())
        quantiles = torch.quantile(torch.cat(rates), torch.tensor(QUANTILES, dtype=torch.float64, device="cpu"))
        return tuple(quantiles.tolist())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for entry in self.state.values():
            if "step" in entry and not isinstance(entry["step"], Tensor):
                entry["step"] = step_tensor(entry["step"])


class AdamW(Adam):
    """Adam with decoupled weight decay, 0.01 by default, as `torch.optim.AdamW` 2.13; else as `Adam`."""

    def __init__(  # noqa: PLR0917, torch's order
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # also where the state dict is Adam's, as in torch


def check_options(
    lr: float | Tensor,
    betas: tuple[float | Tensor, float | Tensor],
    eps: float,
    weight_decay: float,
    *,
    plain_foreach: bool,
) -> None:
    """Raise ValueError as `torch.optim.Adam` does, in its order; NaN is out of every range."""
    check_tensor("lr", lr, plain_foreach=plain_foreach)
    check_not_negative("learning rate", lr)
    check_not_negative("epsilon value", eps)
    for index, beta in enumerate(betas[:2]):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
    check_not_negative("weight_decay value", weight_decay)
    if not any(isinstance(betas[0], kind) and isinstance(betas[1], kind) for kind in (float, Tensor)):
        raise ValueError("betas must be either both floats or both Tensors")
    for index, beta in enumerate(betas[:2]):
        check_tensor(f"betas[{index}]", beta, plain_foreach=plain_foreach)


def check_not_negative(what: str, value: float | Tensor) -> None:
    """Raise ValueError for a value below zero or NaN."""
    if not 0.0 <= value:  # noqa: SIM300, in this order a str or None gets torch's TypeError
        raise ValueError(f"Invalid {what}: {value}")


def check_tensor(name: str, value: float | Tensor, *, plain_foreach: bool) -> None:
    """Raise ValueError for a tensor option of several elements, or beside torch's foreach, which can't take it."""
    if isinstance(value, Tensor):
        if plain_foreach:
            raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")
        if value.numel() != 1:
            raise ValueError(f"Tensor {name} must be 1-element")


def new_state(param: Tensor, *, amsgrad: bool) -> dict[str, Tensor]:
    """Zero moments in the parameter's layout, and the count of its updates on the CPU."""
    keys = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
    return {"step": step_tensor(0)} | {
        key: torch.zeros_like(param, memory_format=torch.preserve_format) for key in keys
    }


def step_tensor(count: float) -> Tensor:
    """torch's form of the update count: 0-d, on the CPU, float64 only where that is the default dtype."""
    dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
    return torch.tensor(float(count), dtype=dtype, device="cpu")


def squeezed(value: float | Tensor) -> float | Tensor:
    """A 1-element tensor option as 0-d, a float as it is."""
    return value.squeeze() if isinstance(value, Tensor) else value


def settle_sqrt() -> None:
    """Call torch.sqrt once per dtype from one thread.

    The first call of MKL's root in a process may, from several threads, silently return a chunk with errors of
    thousands of ulp (pytorch #188792, open): a first step, or a resumed one, would differ from run to run.
    """
    for dtype in (torch.float32, torch.float64):
        torch.ones(1, dtype=dtype, device="cpu").sqrt()
