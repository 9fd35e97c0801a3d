"""Tensors that share memory: torch's results, in torch's order, bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.optim_core.pairs import assert_equal, make, needs_kernel, takes_all, written

pytestmark = pytest.mark.usefixtures("ieee_root")

KINDS = pytest.mark.parametrize(
    ("kind", "options"),
    [("SGD", {}), ("SGD", {"momentum": 0.9, "weight_decay": 0.1}), ("Adam", {}), ("AdamW", {"amsgrad": True})],
    ids=["SGD", "SGD momentum", "Adam", "AMSGrad"],
)
Optimizer = torch.optim.Optimizer
Scene = Callable[[], tuple[list[Any], Callable[[Optimizer, int], None]]]


class Wrapped(Parameter):
    """A parameter of another type, as tensor subclasses make them."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


def ramp(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=dtype).reshape(shape)


def fill(*params: Parameter) -> None:
    for index, param in enumerate(params):
        param.grad = torch.full_like(param.detach(), 0.5 + index)


def gradient_is_the_parameter() -> Any:
    param = Parameter(ramp(70))
    return [{"params": [param]}], lambda optimizer, step: setattr(param, "grad", param.detach())


def gradient_is_the_next_parameter() -> Any:
    one, two = Parameter(ramp(70)), Parameter(ramp(70) * 2)

    def give(optimizer: Optimizer, step: int) -> None:
        one.grad, two.grad = two.detach(), one.detach()

    return [{"params": [one, two]}], give


def overlapping_parameters() -> Any:
    memory = ramp(100)
    one, two = Parameter(memory[:70]), Parameter(memory[30:])
    return [{"params": [one, two]}], lambda optimizer, step: fill(one, two)


def interleaved_parameters() -> Any:
    memory = ramp(100)
    one, two, three = Parameter(memory[::2]), Parameter(memory[1::2]), Parameter(memory)
    return [{"params": [one, three, two]}], lambda optimizer, step: fill(one, two, three)


def one_gradient_for_two() -> Any:
    one, two = Parameter(ramp(70)), Parameter(ramp(70))

    def give(optimizer: Optimizer, step: int) -> None:
        one.grad = two.grad = ramp(70) * step

    return [{"params": [one, two]}], give


def shared_state(key: str, other: str) -> Scene:
    def scene() -> Any:
        one, two = Parameter(ramp(70)), Parameter(ramp(70))

        def give(optimizer: Optimizer, step: int) -> None:
            fill(one, two)
            if step == 2 and key in optimizer.state[one]:
                optimizer.state[two][other] = optimizer.state[one][key]

        return [{"params": [one, two]}], give

    return scene


def one_moment_is_the_other() -> Any:
    param = Parameter(ramp(70))

    def give(optimizer: Optimizer, step: int) -> None:
        fill(param)
        if step == 2 and "exp_avg" in optimizer.state[param]:
            optimizer.state[param]["exp_avg_sq"] = optimizer.state[param]["exp_avg"]

    return [{"params": [param]}], give


def state_is_the_gradient() -> Any:
    param = Parameter(ramp(70))

    def give(optimizer: Optimizer, step: int) -> None:
        fill(param)
        for key in ("momentum_buffer", "exp_avg"):
            if step == 2 and key in optimizer.state[param]:
                optimizer.state[param][key] = param.grad

    return [{"params": [param]}], give


def left_parameter(kind: str) -> tuple[Parameter, Any]:
    """One that the kernel leaves to the plain rules, and its lr."""
    if kind == "tensor lr":
        return Parameter(ramp(70)), torch.tensor(0.3)
    return (Wrapped(ramp(70)) if kind == "subclass" else Parameter(ramp(140)[::2])), 0.3


def through(kind: str) -> Scene:
    """A parameter that the kernel leaves, before and after one that it takes, each the other's gradient."""

    def scene() -> Any:
        left, lr = left_parameter(kind)
        before, after = Parameter(ramp(70)), Parameter(ramp(70))

        def give(optimizer: Optimizer, step: int) -> None:
            before.grad, left.grad, after.grad = left.detach(), after.detach(), left.detach()
            left.grad = after.detach() if step % 2 else before.detach()

        return [{"params": [before]}, {"params": [left], "lr": lr}, {"params": [after]}], give

    return scene


def left_by_gradient(kind: str) -> Scene:
    """A left one, before one that the kernel takes, whose old values are its gradient."""

    def scene() -> Any:
        left, lr = left_parameter(kind)
        after = Parameter(ramp(70))

        def give(optimizer: Optimizer, step: int) -> None:
            left.grad, after.grad = after.detach(), torch.ones(70)

        return [{"params": [left], "lr": lr}, {"params": [after]}], give

    return scene


def left_by_state(kind: str) -> Scene:
    """A left one with the state of one that the kernel takes."""

    def scene() -> Any:
        left, lr = left_parameter(kind)
        after = Parameter(ramp(70))

        def give(optimizer: Optimizer, step: int) -> None:
            fill(left, after)
            for key in ("momentum_buffer", "exp_avg", "step"):
                if step == 1 and key in optimizer.state[after]:
                    optimizer.state[left][key] = optimizer.state[after][key]

        return [{"params": [left], "lr": lr}, {"params": [after]}], give

    return scene


def shared_from_the_third_step() -> Any:
    """As many tensors as before, and only then in one memory."""
    one, two = Parameter(ramp(70)), Parameter(ramp(70) * 2)

    def give(optimizer: Optimizer, step: int) -> None:
        fill(one, two)
        if step > 1:
            one.grad, two.grad = two.detach(), one.detach()

    return [{"params": [one, two]}], give


LEFT = ("strided", "subclass", "tensor lr")
SCENES: dict[str, Scene] = {
    "gradient is the parameter": gradient_is_the_parameter,
    "gradient is the next parameter": gradient_is_the_next_parameter,
    "overlapping parameters": overlapping_parameters,
    "interleaved parameters": interleaved_parameters,
    "one gradient for two": one_gradient_for_two,
    "one moment is the other": one_moment_is_the_other,
    "state is the gradient": state_is_the_gradient,
    "shared from the third step": shared_from_the_third_step,
}
SCENES |= {f"left between: {kind}": through(kind) for kind in LEFT}
SCENES |= {f"left, by gradient: {kind}": left_by_gradient(kind) for kind in LEFT}
SCENES |= {f"left, by state: {kind}": left_by_state(kind) for kind in LEFT}
SCENES |= {
    f"shared {key} as {other}": shared_state(key, other)
    for key, other in [
        ("step", "step"),
        ("exp_avg", "exp_avg"),
        ("exp_avg", "exp_avg_sq"),
        ("max_exp_avg_sq", "exp_avg_sq"),
        ("momentum_buffer", "momentum_buffer"),
    ]
}


@KINDS
@pytest.mark.parametrize("scene", SCENES)
def test_shared_memory_gives_torchs_result(kind: str, options: dict[str, Any], scene: str) -> None:
    results = []
    for who in ("native", "torch"):
        groups, give = SCENES[scene]()
        params = [param for group in groups for param in group["params"]]
        optimizer = make(who, kind, groups, **options)
        for group in groups:
            group.setdefault("lr", 0.3)
        for step in range(4):
            give(optimizer, step)
            optimizer.step()
        results.append(written(optimizer, params))
    assert_equal(*results)


@needs_kernel
def test_memory_that_touches_but_does_not_overlap_is_the_kernels() -> None:
    """Parameters cut from one buffer, as fused layers and arenas make them, and left ones beside them."""
    memory = ramp(300)
    params = [Parameter(memory[start : start + 100]) for start in (0, 100, 200)]
    optimizer = make("native", "Adam", params)
    for _ in range(2):
        fill(*params)
        assert optimizer.step() is None
    assert takes_all(optimizer)
    strided = ramp(40)
    optimizer.add_param_group({"params": [Parameter(strided[::2]), Parameter(strided[1::2])]})
    fill(*optimizer.param_groups[1]["params"])
    left = optimizer._table.read(optimizer._rule, optimizer.param_groups, optimizer.state, None)
    optimizer._table.forget()
    assert [group is optimizer.param_groups[1] for group, *_ in left] == [True, True]
