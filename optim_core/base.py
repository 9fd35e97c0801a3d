"""What SGD and Adam share: the step's way through the kernel, the plain rules or the GPU, clipping, telemetry, and
the options that are refused.

A subclass holds its options and errors, and says how the plain rule updates one parameter. `torch.optim.Optimizer`
keeps groups, hooks and `state_dict`.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from math import sqrt
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch._compile import _disable_dynamo
from torch.autograd.graph import increment_version
from torch.optim import optimizer as torch_optimizer

from optim_core import gpu, native
from optim_core.telemetry import GroupTelemetry

REFUSED = {
    "differentiable": "the update is in place and outside autograd",
    "capturable": "the step count is read on the host, so a captured graph would replay one bias correction, "
    "unless the parameters are on a GPU and Triton is installed (extra gpu)",
}

WIDE = {torch.float64, torch.complex128}


Left = tuple[dict[str, Any], Tensor, Tensor]
"""The param group, parameter and gradient of a parameter that the native kernel does not take."""


def refuse_unsupported(options: dict[str, Any]) -> None:
    """Raise ValueError where a param group asks torch for what this update can't do."""
    for name, reason in REFUSED.items():
        if options.get(name) and not (name == "capturable" and can_capture(options["params"])):
            raise ValueError(f"{name}={options[name]} is not supported by optim_core: {reason}. It must be False")


def can_capture(params: Any) -> bool:
    """Whether the GPU kernel counts the steps of these parameters on their device."""
    each = [params] if isinstance(params, Tensor) else list(params)
    tensors = [one[1] if isinstance(one, tuple) else one for one in each]
    return all(isinstance(one, Tensor) and gpu.serves(one) for one in tensors) and gpu.available()


def number(value: float | Tensor) -> float:
    """The value of an option that may be a 1-element tensor, exactly."""
    return float(value.item()) if isinstance(value, Tensor) else value


class RuleOptimizer(torch.optim.Optimizer):
    """An optimizer that updates each parameter with a gradient by a rule of `optim_core.rules`.

    A parameter whose gradient is None is skipped: no decay, no momentum, no step counted. All gradients are checked
    before the first write, so a refused step has changed nothing.
    """

    rule: ClassVar[str]
    """The rule's name in the native kernel."""

    flags: ClassVar[tuple[str, ...]]
    """Boolean options that a state dict from an older torch may lack; they are then False."""

    measured: tuple[GroupTelemetry, ...] | None
    """What the step after `measure_next_step` did to each param group; None before."""

    def __init__(self, params: torch_optimizer.ParamsT, defaults: dict[str, Any]) -> None:
        self._reset()
        super().__init__(params, defaults)

    def _reset(self) -> None:
        self._table = None if native.kernel is None else native.kernel.Table()
        self._rule = None if native.kernel is None else getattr(native.kernel, self.rule)
        self._gpu_table = gpu.GpuTable()
        self._scales: list[Any] | None = None
        self._measure = False
        self.measured = None

    def check_sparse(self, group: dict[str, Any]) -> None:
        """Raise RuntimeError where the rule takes no sparse gradients in this param group."""

    def update_group(self, group: dict[str, Any], pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Update parameters of one group by the plain rule; `pairs` are (parameter, gradient), in the group's order.

        Makes their state where there is none. Called without grad.
        """
        raise NotImplementedError

    def update_on_gpu(self, table: gpu.GpuTable, rows: list[gpu.Row], scale: float | Tensor) -> None:
        """Update parameters that `gpu.takes` takes by the GPU kernel. Called without grad."""
        raise NotImplementedError

    def gpu_state(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        """The state of a parameter for the GPU kernel, made where there is none and the rule starts from zeros."""
        del group
        state: dict[str, Tensor] = self.state[param]
        return state

    def rate_quantiles(self, group: dict[str, Any]) -> tuple[float, ...] | None:
        """Quantiles of the rates by which the elements of a group just moved; None where all have one rate."""
        del group
        return None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return the closure's loss, or None without one.

        `closure` clears the gradients, computes the loss and its gradients (run with grad enabled) and returns the
        loss.

        Raises RuntimeError for a sparse gradient where the rule can't take it, and for a gradient of another shape,
        dtype or device than its parameter.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or _profiler_enabled()
        ):
            return _step_with_hooks(self, closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # else torch wraps it in 12 µs of hooks and profiler

    def measure_next_step(self) -> None:
        """Have the next step leave in `measured` what it does to each param group, at the cost of a few percent."""
        self._measure = True

    def clip_grad_norm(self, max_norm: float, *, error_if_nonfinite: bool = False) -> Tensor:
        """Bound the L2 norm of all gradients together by `max_norm`; return the norm before, a 0-d tensor.

        As `torch.nn.utils.clip_grad_norm_`, but in one pass: the gradients are only read. Where their norm is above
        `max_norm`, the next `step` multiplies them by max_norm / (norm + 1e-6) as it reads them, and `.grad` stays as
        it is. Another call replaces the factor; `zero_grad` drops it. A norm that is NaN makes the step's gradients
        NaN, an infinite one makes them 0 or NaN, as in torch.

        The norm is summed in float64, independent of the number of threads; float64 for float64 parameters, else
        float32, on the gradients' device, where it waits for nothing if all of them are on one GPU.

        Raises ValueError where max_norm is negative or NaN; RuntimeError for a norm that is not finite, if
        `error_if_nonfinite`.
        """
        if not max_norm >= 0:
            raise ValueError(f"max_norm={max_norm} must be at least 0")
        grads = self._gpu_gradients()
        norm = self._gpu_table.grad_norm(grads) if grads else self._grad_norm()
        if error_if_nonfinite and not norm.isfinite():
            raise RuntimeError(f"the gradients' norm is {norm.item()}; they were not clipped")
        if grads:
            self._scales = [(max_norm / (norm + 1e-6)).clamp(max=1.0)] * len(self.param_groups)
        else:
            factor = clip_factor(max_norm, norm.item())
            self._scales = None if factor == 1.0 else [factor] * len(self.param_groups)
        return norm

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients (or fill them with 0 if not `set_to_none`), and the factor of `clip_grad_norm`."""
        self._scales = None
        if not set_to_none or _profiler_enabled():
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        left = self._read()
        if left:
            try:
                self._check(left)
            except BaseException:
                if self._table is not None:
                    self._table.forget()
                raise
        sums = [(0.0, 0.0, 0.0)] * len(self.param_groups) if self._measure else None
        if self._table is not None:
            written, measured = self._table.run(torch.get_num_threads(), self._measure)
            increment_version(written)
            sums = measured
        if left:
            unguarded(self._update_left)(left, sums)
        if sums is not None:
            self.measured = tuple(
                GroupTelemetry(sqrt(grad), sqrt(update), sqrt(weight), self.rate_quantiles(group))
                for group, (grad, update, weight) in zip(self.param_groups, sums, strict=True)
            )
        self._measure, self._scales = False, None
        return loss

    def _read(self) -> list[Left]:
        """Have the kernel read all it takes; return the parameters with a gradient that it does not take."""
        if self._table is None:
            return [
                (group, param, grad)
                for group in self.param_groups
                for param in group["params"]
                if (grad := param.grad) is not None
            ]
        scales = None if self._scales and isinstance(self._scales[0], Tensor) else self._scales
        left: list[Left] | None = self._table.read(self._rule, self.param_groups, self.state, scales)
        return left or []

    def _check(self, rows: list[Left]) -> None:
        """Raise RuntimeError for a gradient that does not fit its parameter or the rule."""
        for group, param, grad in rows:
            if grad.is_sparse:
                self.check_sparse(group)
            if grad.shape != param.shape or grad.dtype is not param.dtype or grad.device != param.device:
                index = next(i for i, other in enumerate(group["params"]) if other is param)
                raise RuntimeError(
                    f"the gradient of parameter {index} of its param group has {difference(grad, param)}; nothing was "
                    "updated"
                )

    @_disable_dynamo  # which writes addcmul_ in other operations, and so in other bits
    @torch.no_grad()
    def _update_left(self, rows: list[Left], sums: list[tuple[float, float, float]] | None) -> None:
        """Update by the plain rules, adding what is measured to `sums`."""
        before = [param.clone() for _, param, _ in rows] if sums is not None else []
        scale_of = {id(group): scale for group, scale in zip(self.param_groups, self._scales or [], strict=False)}
        for of_group, group_rows in groupby(rows, lambda row: id(row[0])):
            self._update_group(list(group_rows), scale_of.get(of_group, 1.0))
        if sums is not None:
            self._add_squares(rows, before, sums)

    def _update_group(self, rows: list[Left], scale: float | Tensor) -> None:
        """Update parameters of one group, on the GPU those that its kernel takes."""
        on_gpu, pairs = [], []
        for group, param, grad in rows:
            state = self.gpu_state(group, param) if gpu.serves(param) else None
            if state is not None and gpu.takes(param, grad, state):
                on_gpu.append(gpu.Row(param, grad, state, group))
            else:
                pairs.append((param, grad))
        if on_gpu:
            self.update_on_gpu(self._gpu_table, on_gpu, scale)
        if isinstance(scale, Tensor) or scale != 1.0:
            pairs = [(param, grad * scale) for param, grad in pairs]
        if pairs:
            self.update_group(rows[0][0], pairs)

    def _add_squares(self, rows: list[Left], before: list[Tensor], sums: list[tuple[float, float, float]]) -> None:
        index_of = {id(group): index for index, group in enumerate(self.param_groups)}
        for (group, param, grad), old in zip(rows, before, strict=True):
            index = index_of[id(group)]
            of_grad, of_update, of_weight = sums[index]
            sums[index] = of_grad + square(grad), of_update + square(param - old), of_weight + square(old)

    def _gpu_gradients(self) -> list[Tensor]:
        """All gradients, where each is for the GPU kernel; else none."""
        grads = []
        for group in self.param_groups:
            for param in group["params"]:
                grad = param.grad
                if grad is not None and not (gpu.serves(grad) and gpu.takes(grad, grad, {})):
                    return []
                grads += [] if grad is None else [grad]
        return grads

    def _grad_squares(self) -> list[float]:
        """The sum of the squares of all gradients' elements, by param group."""
        sums, left = [0.0] * len(self.param_groups), None
        if self._table is None:
            left = self._read()
        else:
            sums, left = self._table.grad_squares(self.param_groups, torch.get_num_threads())
        for group, _, grad in left or ():
            sums[next(i for i, other in enumerate(self.param_groups) if other is group)] += square(grad)
        return sums

    def _grad_norm(self) -> Tensor:
        wide = any(param.dtype in WIDE for group in self.param_groups for param in group["params"])
        dtype = torch.float64 if wide else torch.float32
        return torch.tensor(sqrt(sum(self._grad_squares())), dtype=dtype, device="cpu")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own, as torch's; refused options are a ValueError."""
        if isinstance(param_group, dict):
            if isinstance(param_group.get("params"), Iterator):
                param_group = param_group | {"params": list(param_group["params"])}
            refuse_unsupported({**self.defaults, **param_group})
        unguarded(super().add_param_group)(param_group)
        if self._scales is not None:
            self._scales.append(1.0)  # clipped are the gradients that there were

    def state_dict(self) -> dict[str, Any]:
        """As torch's."""
        state: dict[str, Any] = unguarded(super().state_dict)()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; refused options are a ValueError."""
        unguarded(super().load_state_dict)(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            refuse_unsupported(group)
        self._reset()
        super().__setstate__(state)
        for group in self.param_groups:
            for flag in self.flags:
                group.setdefault(flag, False)


def unguarded(method: Any) -> Any:
    """A method without torch's guard against Dynamo (`torch._disable_dynamo`), if Dynamo is not there to trace it.

    The guard imports Dynamo at the first call, which takes a process longer than a second.
    """
    function = getattr(method, "__wrapped__", None)
    if function is None or torch.compiler.is_dynamo_compiling() or "torch._dynamo" in sys.modules:
        return method
    return MethodType(function, method.__self__)


def clip_factor(max_norm: float, norm: float) -> float:
    """What gradients of this norm are multiplied by; 1 where they are within max_norm. As torch's, NaN passes on."""
    factor = max_norm / (norm + 1e-6)
    return 1.0 if factor > 1.0 else factor


def difference(grad: Tensor, param: Tensor) -> str:
    """The first property in which a gradient does not fit its parameter, in words."""
    what = next(what for what in ("shape", "dtype", "device") if getattr(grad, what) != getattr(param, what))
    return f"{what} {getattr(grad, what)}, the parameter has {getattr(param, what)}"


def square(values: Tensor) -> float:
    """The sum of the squares of all elements, in float64; of a sparse tensor too."""
    dense = values.coalesce().values() if values.is_sparse else values
    wide = torch.complex128 if dense.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(dense, dtype=wide).item()) ** 2


_step_with_hooks = torch.optim.Optimizer.profile_hook_step(RuleOptimizer._step)
