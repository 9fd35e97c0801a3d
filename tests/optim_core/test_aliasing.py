"""Tensors that share memory, and tensors of odd kinds: torch's results, in torch's order, bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.optim_core.pairs import assert_equal, bits_of, make, needs_kernel, takes_all, written

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
            if step == 1 and key in optimizer.state[one]:
                optimizer.state[two][other] = optimizer.state[one][key]

        return [{"params": [one, two]}], give

    return scene


def one_moment_is_the_other() -> Any:
    param = Parameter(ramp(70))

    def give(optimizer: Optimizer, step: int) -> None:
        fill(param)
        if step == 1 and "exp_avg" in optimizer.state[param]:
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


def through(kind: str) -> Scene:
    """A parameter that the kernel leaves, before and after one that it takes, each the other's gradient."""

    def scene() -> Any:
        memory = ramp(140)
        left = {
            "strided": lambda: Parameter(memory[::2]),
            "subclass": lambda: Wrapped(ramp(70)),
            "tensor lr": lambda: Parameter(ramp(70)),
        }[kind]()
        before, after = Parameter(ramp(70)), Parameter(ramp(70))

        def give(optimizer: Optimizer, step: int) -> None:
            before.grad, left.grad, after.grad = left.detach(), after.detach(), left.detach()
            left.grad = after.detach() if step % 2 else before.detach()

        lr = torch.tensor(0.3) if kind == "tensor lr" else 0.3
        return [{"params": [before]}, {"params": [left], "lr": lr}, {"params": [after]}], give

    return scene


SCENES: dict[str, Scene] = {
    "gradient is the parameter": gradient_is_the_parameter,
    "gradient is the next parameter": gradient_is_the_next_parameter,
    "overlapping parameters": overlapping_parameters,
    "interleaved parameters": interleaved_parameters,
    "one gradient for two": one_gradient_for_two,
    "one moment is the other": one_moment_is_the_other,
    "state is the gradient": state_is_the_gradient,
    "a strided one between": through("strided"),
    "a subclass between": through("subclass"),
    "a tensor lr between": through("tensor lr"),
} | {
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


def negated(value: Tensor) -> Tensor:
    """The same values, as a view that torch negates when it reads it."""
    found = torch.complex(torch.zeros_like(value), -value).conj().imag
    assert found.is_neg()
    return found


def gradient_of_a_graph(value: Tensor) -> Tensor:
    return value.clone().requires_grad_() * 1


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "negated": negated,
    "expanded": lambda value: value.flatten()[0].expand(value.shape),
    "in a graph": gradient_of_a_graph,
    "flipped": lambda value: value.flip(0) if value.dim() else value,
    "transposed": lambda value: value.t().contiguous().t() if value.dim() == 2 else value,
    "a parameter": Parameter,
    "in inference mode": lambda value: torch.inference_mode()(value.clone)(),
    "misaligned": lambda value: torch.cat([torch.zeros(1), value.flatten()])[1:].view(value.shape),
    "a lazy copy": torch._lazy_clone,
}


@KINDS
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_odd_kinds(kind: str, options: dict[str, Any], name: str) -> None:
    results = []
    for who in ("native", "torch"):
        params = [Parameter(ramp(*shape)) for shape in [(), (1,), (1, 1), (7,), (4, 5)]]
        optimizer = make(who, kind, params, **options)
        for step in range(3):
            for param in params:
                param.grad = GRADIENTS[name](ramp(*param.shape) + step + 1)
            optimizer.step()
        results.append(written(optimizer, params))
    assert_equal(*results)


@needs_kernel
@pytest.mark.parametrize("where", ["param", "exp_avg", "exp_avg_sq", "step"])
def test_negated_parameters_and_state(where: str) -> None:
    """Of one element, because only those can be dense."""
    results = []
    for who in ("native", "torch"):
        param = Parameter(negated(torch.tensor([1.0])) if where == "param" else torch.ones(1))
        optimizer = make(who, "Adam", [param], lr=0.1)
        for step in range(3):
            param.grad = torch.tensor([2.0])
            optimizer.step()
            if where != "param" and step == 0:
                optimizer.state[param][where] = negated(optimizer.state[param][where])
        seen = written(optimizer, [param])
        results.append(seen | {"value": bits_of(param.detach().resolve_neg())})
    assert_equal(*results)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_lazy_copy_is_written_and_its_source_is_not(kind: str) -> None:
    source = torch.ones(70)
    param = Parameter(torch._lazy_clone(source))
    optimizer = make("native", kind, [param], lr=0.1)
    for _ in range(3):
        param.grad = torch.ones(70)
        optimizer.step()
    assert torch.equal(source, torch.ones(70))
    assert float(param.detach().max()) < 0.9


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(
    "make_param",
    [
        lambda: Wrapped(ramp(6)),
        lambda: Parameter(ramp(6).to(torch.complex64) * 1j),
        lambda: Parameter(torch.ones(6, device="meta")),
        lambda: torch.nn.Buffer(ramp(6)).requires_grad_(),
    ],
    ids=["subclass", "complex", "meta", "buffer"],
)
def test_parameters_that_the_kernel_leaves_go_as_in_torch(kind: str, make_param: Callable[[], Tensor]) -> None:
    results = []
    for who in ("native", "torch"):
        odd, plain_one = make_param(), Parameter(ramp(6))
        optimizer = make(who, kind, [plain_one, odd, Parameter(ramp(3))], lr=0.1)
        for _ in range(3):
            odd.grad, plain_one.grad = torch.full_like(odd.detach(), 0.5), torch.ones(6)
            optimizer.step()
        seen = [plain_one] if odd.is_meta else [plain_one, odd]
        results.append(written(optimizer, seen) | {"count": torch.tensor(len(optimizer.state))})
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
