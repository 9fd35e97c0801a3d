"""The one table of optimizers and options that the tests of `optim_core` walk, and the parameters they walk it on.

`CASES` is every meaningful combination of options; `BAD_OPTIONS` every option out of its range. `build` makes ours or
torch's from a case; torch's is its default, single-tensor loop.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core


@dataclass(frozen=True)
class Case:
    """One optimizer with options; with `second_group`, every other parameter is in a group with these options."""

    optimizer: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    second_group: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.optimizer}-{self.name}"


def build(case: Case, params: list[Parameter], *, ours: bool) -> torch.optim.Optimizer:
    """Ours or torch's, over `params`."""
    groups: list[dict[str, Any]] = [{"params": params}]
    if case.second_group is not None:
        groups = [{"params": params[::2]}, {"params": params[1::2]} | deepcopy(case.second_group)]
    hints = {} if ours else {"foreach": False}
    make: type[torch.optim.Optimizer] = getattr(optim_core if ours else torch.optim, case.optimizer)
    return make(groups, **deepcopy(case.options), **hints)


SGD_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "large lr": {"lr": 0.5},
    "zero lr": {"lr": 0.0},
    "tensor lr": {"lr": torch.tensor(0.1), "momentum": 0.9},
    "1-element tensor lr": {"lr": torch.tensor([0.1], dtype=torch.float64)},
    "lr that requires grad": {"lr": torch.tensor(0.1, requires_grad=True)},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "momentum above 1": {"lr": 1e-3, "momentum": 1.01},
    "dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    "full dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 1},
    "dampening without momentum": {"lr": 0.1, "dampening": 0.3},
    "weight decay": {"lr": 0.1, "weight_decay": 0.1},
    "tensor weight decay": {"lr": 0.1, "weight_decay": torch.tensor(0.1)},
    "momentum, decay": {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "nesterov, decay": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "maximize": {"lr": 0.1, "maximize": True},
    "maximize, decay": {"lr": 0.01, "maximize": True, "weight_decay": 0.1},
    "maximize, dampening, decay": {
        "lr": 0.01,
        "momentum": 0.9,
        "dampening": 0.5,
        "weight_decay": 0.1,
        "maximize": True,
    },
    "maximize, nesterov, decay": {
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.1,
        "maximize": True,
    },
}

BETA_TENSORS = (torch.tensor(0.9), torch.tensor([0.99]))

ADAM_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "large lr": {"lr": 0.1},
    "zero lr": {"lr": 0.0},
    "tensor lr": {"lr": torch.tensor(0.01)},
    "1-element tensor lr": {"lr": torch.tensor([0.01], dtype=torch.float64), "weight_decay": 0.1},
    "lr that requires grad": {"lr": torch.tensor(0.01, requires_grad=True), "weight_decay": 0.1},
    "tensor betas": {"betas": BETA_TENSORS},
    "short memory": {"betas": (0.3, 0.7)},
    "no memory": {"betas": (0.0, 0.0)},
    "large eps": {"eps": 1e-2},
    "zero eps": {"eps": 0},
    "weight decay": {"weight_decay": 0.1},
    "amsgrad": {"amsgrad": True},
    "amsgrad, decay": {"amsgrad": True, "weight_decay": 0.1, "betas": (0.9, 0.5)},
    "maximize": {"maximize": True},
    "maximize, amsgrad, decay": {"maximize": True, "amsgrad": True, "weight_decay": 0.1},
}

# AdamW is Adam with decoupled decay: only what meets the decay differs.
DECAY_MATTERS = ("plain", "tensor lr", "1-element tensor lr", "tensor betas", "amsgrad, decay", "maximize")

CASES: list[Case] = [
    *(Case("SGD", name, options) for name, options in SGD_OPTIONS.items()),
    *(Case("Adam", name, options) for name, options in ADAM_OPTIONS.items()),
    *(Case("AdamW", name, ADAM_OPTIONS[name]) for name in DECAY_MATTERS),
    Case("Adam", "decoupled decay", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    Case("Adam", "tensor lr, decoupled", {"lr": torch.tensor(0.01), "decoupled_weight_decay": True}),
    Case("AdamW", "no decay", {"weight_decay": 0}),
    Case("SGD", "groups", {"lr": 0.1}, {"lr": 0.01, "momentum": 0.9, "nesterov": True, "maximize": True}),
    Case("SGD", "groups with and without decay", {"momentum": 0.5, "weight_decay": 0.1}, {"weight_decay": 0}),
    Case("Adam", "groups", {"lr": 0.1}, {"lr": torch.tensor(0.01), "betas": (0.5, 0.9), "eps": 1e-6}),
    Case("Adam", "groups with and without amsgrad", {"amsgrad": True}, {"amsgrad": False, "maximize": True}),
    Case("AdamW", "groups", {"weight_decay": 0.1}, {"weight_decay": 0}),
]

NAN = float("nan")

BAD_SGD: list[dict[str, Any]] = [
    {"lr": -0.1},
    {"lr": "0.1"},
    {"lr": None},
    {"lr": torch.tensor([0.1, 0.2])},
    {"lr": torch.tensor(-0.1)},
    {"momentum": -0.1},
    {"weight_decay": -0.1},
    {"nesterov": True},
    {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
    {"foreach": True, "fused": True},
    {"no_such_option": 1},
]

BAD_ADAM: list[dict[str, Any]] = [
    {"lr": -0.1},
    {"lr": NAN},
    {"lr": "0.1"},
    {"lr": torch.tensor([0.1, 0.2])},
    {"lr": torch.tensor(-0.1)},
    {"lr": torch.tensor(0.1), "foreach": True},
    {"eps": -1e-8},
    {"eps": NAN},
    {"betas": 0.9},
    {"betas": (0.9,)},
    {"betas": (1.0, 0.999)},
    {"betas": (-0.1, 0.999)},
    {"betas": (0.9, 1.0)},
    {"betas": (0.9, NAN)},
    {"betas": (0, 0.999)},
    {"betas": (0.9, torch.tensor(0.999))},
    {"betas": (torch.tensor(1.5), torch.tensor(0.999))},
    {"betas": BETA_TENSORS, "foreach": True},
    {"weight_decay": -0.1},
    {"weight_decay": None},
    {"foreach": True, "fused": True},
    {"no_such_option": 1},
]

BAD_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *(("SGD", options) for options in BAD_SGD),
    *((kind, options) for kind in ("Adam", "AdamW") for options in BAD_ADAM),
    ("AdamW", {"decoupled_weight_decay": True}),
]


def zoo(dtype: torch.dtype) -> list[Parameter]:
    """Parameters of every awkward kind, equal at each call; the last one is frozen."""
    rng = torch.Generator().manual_seed(3)
    wide = torch.complex128 if dtype.is_complex else torch.float64

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=wide).to(dtype)

    return [
        Parameter(values(5, 7)),
        Parameter(values()),
        Parameter(values(0, 3)),
        Parameter(values(2, 3, 4, 4).to(memory_format=torch.channels_last)),
        Parameter(values(6, 4).t()),
        Parameter(values(67)),
        Parameter(values(20)[::2]),
        Parameter(values(3), requires_grad=False),
    ]


@cache
def gradients(dtype: torch.dtype, steps: int) -> list[list[Tensor | None]]:
    """Gradients for the zoo at each step: over nine decades, now and then zero or contiguous, often missing."""
    rng = torch.Generator().manual_seed(5)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    table: list[list[Tensor | None]] = []
    for step in range(steps):
        row: list[Tensor | None] = []
        for index, param in enumerate(zoo(dtype)):
            scale = 10.0 ** torch.randint(-6, 3, (), generator=rng)
            grad = torch.empty_like(param.detach()).copy_(torch.randn(param.shape, generator=rng, dtype=wide) * scale)
            if (step + index) % 7 == 6:
                grad.zero_()
            missing = not param.requires_grad or (index > 0 and (step + index) % 5 == 4)
            row.append(None if missing else grad.contiguous() if step % 2 else grad)
        table.append(row)
    return table


def run(optimizer: torch.optim.Optimizer, params: list[Parameter], rows: list[list[Tensor | None]]) -> None:
    """Step once for each row of gradients."""
    for row in rows:
        for param, grad in zip(params, row, strict=True):
            param.grad = grad
        optimizer.step()


def states(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a step may write, with its name."""
    for index, param in enumerate(params):
        yield f"param {index}", param.detach()
        for key, value in optimizer.state.get(param, {}).items():
            yield f"param {index} {key}", value


def assert_same_bits(
    actual: Iterator[tuple[str, Tensor]], expected: Iterator[tuple[str, Tensor]], *, strides: bool = True
) -> None:
    """Equal names, dtypes, shapes, bits and, unless one side is a copy, strides; NaN equals NaN."""
    ours, theirs = dict(actual), dict(expected)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        other = theirs[name]
        assert (value.dtype, value.shape) == (other.dtype, other.shape), name
        assert not strides or value.stride() == other.stride(), name
        torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(real(value).signbit(), real(other).signbit()), f"{name}: signs of zero differ"


def real(value: Tensor) -> Tensor:
    return torch.view_as_real(value) if value.is_complex() else value
