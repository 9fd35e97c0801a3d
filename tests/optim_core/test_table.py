"""The table is read anew at each step: whatever was replaced since, ours does what torch does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core
from tests.optim_core.pairs import Bits, assert_equal, make, written

pytestmark = pytest.mark.usefixtures("ieee_root")

Optimizer = torch.optim.Optimizer
Edit = Callable[[Optimizer, list[Parameter]], None]
SGD, ADAM, AMSGRAD = ("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {"amsgrad": True})
KINDS = pytest.mark.parametrize(("kind", "options"), [SGD, ADAM, AMSGRAD], ids=["SGD", "Adam", "AMSGrad"])


def give(params: list[Parameter], step: int) -> None:
    for index, param in enumerate(params):
        rng = torch.Generator().manual_seed(100 * step + index)
        param.grad = torch.randn(param.shape, generator=rng, dtype=torch.float64).to(param.dtype)


def walked(who: str, kind: str, options: dict[str, Any], edit: Edit, *, before_grad: bool) -> list[Bits]:
    """Three steps, the edit, three steps; `before_grad`: before the gradients of the fourth, else after them."""
    shapes = [(4, 3), (5,), (2, 3, 2, 2), ()]
    params = [Parameter(torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)) for shape in shapes]
    optimizer = make(who, kind, params, lr=0.1, **options)
    seen = []
    for step in range(6):
        if step == 3 and before_grad:
            edit(optimizer, params)
        give(params, step)
        if step == 3 and not before_grad:
            edit(optimizer, params)
        optimizer.step()
        seen.append(written(optimizer, params))
    return seen


def replace_state(change: Callable[[Tensor], Tensor]) -> Edit:
    """Change each state tensor but the count, in a new one."""

    def edit(optimizer: Optimizer, params: list[Parameter]) -> None:
        for param in params:
            for key, value in optimizer.state[param].items():
                if key != "step":
                    optimizer.state[param][key] = change(value)

    return edit


def reassign(change: Callable[[Tensor], Tensor]) -> Edit:
    def edit(optimizer: Optimizer, params: list[Parameter]) -> None:
        for param in params:
            param.data = change(param.data)

    return edit


def set_options(**options: Any) -> Edit:
    def edit(optimizer: Optimizer, params: list[Parameter]) -> None:
        optimizer.param_groups[0].update(options)

    return edit


def freeze(optimizer: Optimizer, params: list[Parameter]) -> None:
    params[0].requires_grad_(False)


def another_optimizer(optimizer: Optimizer, params: list[Parameter]) -> None:
    give(params, 99)
    module = optim_core if isinstance(optimizer, optim_core.base.RuleOptimizer) else torch.optim
    second = module.Adam(params)
    second.step()
    second.step()


def shared_count(optimizer: Optimizer, params: list[Parameter]) -> None:
    for param in params[1:]:
        if "step" in optimizer.state[param]:
            optimizer.state[param]["step"] = optimizer.state[params[0]]["step"]


def double_counts(optimizer: Optimizer, params: list[Parameter]) -> None:
    for param in params:
        if "step" in optimizer.state[param]:
            optimizer.state[param]["step"] = optimizer.state[param]["step"].double() + 7


def reload(optimizer: Optimizer, params: list[Parameter]) -> None:
    optimizer.load_state_dict(optimizer.state_dict())


def channels_last(value: Tensor) -> Tensor:
    return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value


def strided(value: Tensor) -> Tensor:
    return value.repeat_interleave(2, dim=-1)[..., ::2] if value.dim() else value


def gradients(change: Callable[[Tensor], Tensor]) -> Edit:
    def edit(optimizer: Optimizer, params: list[Parameter]) -> None:
        for param in params:
            assert param.grad is not None
            param.grad.data = change(param.grad)

    return edit


AFTER_GRAD: dict[str, Edit] = {
    "gradients in other memory": gradients(Tensor.clone),
    "gradients channels last": gradients(channels_last),
    "gradients every other element": gradients(strided),
    "gradients of one value": gradients(lambda grad: torch.tensor(0.5).expand(grad.shape)),
    "no gradients": lambda optimizer, params: [setattr(param, "grad", None) for param in params] and None,
    "one gradient gone": lambda optimizer, params: setattr(params[1], "grad", None),
}
BEFORE_GRAD: dict[str, Edit] = {
    "parameters in other memory": reassign(lambda value: value.clone() * 2),
    "parameters channels last": reassign(channels_last),
    "parameters every other element": reassign(strided),
    "state in other memory": replace_state(lambda value: value.clone() * 2),
    "state channels last": replace_state(channels_last),
    "state every other element": replace_state(strided),
    "state deleted": lambda optimizer, params: optimizer.state.clear(),
    "state of one deleted": lambda optimizer, params: optimizer.state.pop(params[1]) and None,
    "frozen": freeze,
    "another optimizer": another_optimizer,
    "one count for all": shared_count,
    "counts in float64": double_counts,
    "its own state dict": reload,
    "other betas": set_options(betas=(0.5, 0.6)),
    "betas as a list": set_options(betas=[0.5, 0.6]),
    "without momentum": set_options(momentum=0),
    "nesterov": set_options(nesterov=True),
    "decay": set_options(weight_decay=0.1),
    "tensor lr": set_options(lr=torch.tensor(0.05)),
    "lr as an int": set_options(lr=1),
    "fewer parameters": lambda optimizer, params: optimizer.param_groups[0].update(params=[params[2], params[0]]),
    "no parameters": lambda optimizer, params: optimizer.param_groups[0].update(params=[]),
}
EDITS = [(name, edit, False) for name, edit in AFTER_GRAD.items()] + [
    (name, edit, True) for name, edit in BEFORE_GRAD.items()
]


@KINDS
@pytest.mark.parametrize(("name", "edit", "before_grad"), EDITS, ids=[name for name, *_ in EDITS])
def test_what_was_replaced_is_seen_as_by_torch(
    kind: str, options: dict[str, Any], name: str, edit: Edit, *, before_grad: bool
) -> None:
    ours, theirs = (walked(who, kind, options, edit, before_grad=before_grad) for who in ("native", "torch"))
    for one, other in zip(ours, theirs, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@KINDS
def test_a_model_moved_to_another_dtype_before_the_first_step(
    kind: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    results = []
    for who in ("native", "torch"):
        model = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(model.weight, 0.5)
        torch.nn.init.constant_(model.bias, 0.25)
        params = list(model.parameters())
        optimizer = make(who, kind, params, lr=0.1, **options)
        model.to(dtype)
        for step in range(3):
            give(params, step)
            optimizer.step()
        results.append(written(optimizer, params))
    assert_equal(*results)


@KINDS
def test_assigning_a_state_dict_leaves_the_optimizer_with_the_old_parameters(
    kind: str, options: dict[str, Any]
) -> None:
    model = torch.nn.Linear(3, 2)
    old = list(model.parameters())
    optimizer = make("native", kind, old, lr=0.1, **options)
    give(old, 0)
    optimizer.step()
    model.load_state_dict({key: torch.ones_like(value) for key, value in model.state_dict().items()}, assign=True)
    new = list(model.parameters())
    before = [param.detach().clone() for param in old]
    give(new, 1)
    optimizer.step()
    assert all(torch.equal(param, torch.ones_like(param)) for param in new)
    assert not any(torch.equal(param, value) for param, value in zip(old, before, strict=True))


@KINDS
def test_momentum_off_and_on_and_gradients_by_turns(kind: str, options: dict[str, Any]) -> None:
    results = []
    for who in ("native", "torch"):
        params = [Parameter(torch.ones(5)) for _ in range(3)]
        optimizer = make(who, kind, params, lr=0.1, **options)
        for step in range(12):
            give(params, step)
            params[step % 3].grad = None
            optimizer.param_groups[0]["momentum"] = 0.9 if step % 4 < 2 else 0.0
            optimizer.step()
        results.append(written(optimizer, params))
    assert_equal(*results)
