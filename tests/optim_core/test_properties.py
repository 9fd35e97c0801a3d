"""What holds for all values: properties of the rules, searched by hypothesis."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

import optim_core
from tests.optim_core.cases import run

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
rates = st.floats(1e-5, 1.0)
momenta = st.floats(0.0, 0.99)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@few
@given(shape=shapes, seed=seeds, lr=rates, momentum=momenta, nesterov=st.booleans(), steps=st.integers(1, 4))
def test_sgd_leaves_parameters_alone_without_gradient_and_decay(
    *, shape: tuple[int, ...], seed: int, lr: float, momentum: float, nesterov: bool, steps: int
) -> None:
    start = normal(shape, seed)
    param = Parameter(start.clone())
    optimizer = optim_core.SGD([param], lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
    run(optimizer, [param], [[torch.zeros(shape, dtype=torch.float64)]] * steps)
    assert torch.equal(param, start)


@few
@given(
    grads=st.lists(st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3), min_size=1, max_size=6),
    lr=rates,
    betas=st.tuples(st.floats(0.0, 0.99), st.floats(0.0, 0.999)),
    amsgrad=st.booleans(),
)
def test_adams_first_step_has_the_size_of_lr(
    *, grads: list[float], lr: float, betas: tuple[float, float], amsgrad: bool
) -> None:
    param = Parameter(torch.zeros(len(grads), dtype=torch.float64))
    grad = torch.tensor(grads, dtype=torch.float64)
    run(optim_core.Adam([param], lr=lr, betas=betas, amsgrad=amsgrad), [param], [[grad]])
    torch.testing.assert_close(param.detach(), -lr * grad.sign(), rtol=2e-5, atol=0)


@few
@given(
    seed=seeds,
    order=st.permutations(range(4)),
    kind=st.sampled_from(["SGD", "Adam", "AdamW"]),
    split=st.booleans(),
)
def test_the_order_of_parameters_and_groups_does_not_matter(
    *, seed: int, order: list[int], kind: str, split: bool
) -> None:
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9} if kind == "SGD" else {})
    grads = [normal((3,), seed + index) for index in range(4)]
    results = []
    for sequence in (range(4), order):
        params = [Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(4)]
        groups = [{"params": [params[i]], "lr": 0.1 * (i + 1)} for i in sequence]
        if split:  # one group of all against groups of one, with one rate
            groups = (
                [{"params": [params[i] for i in sequence]}]
                if sequence is order
                else [{"params": [param]} for param in params]
            )
        run(getattr(optim_core, kind)(groups, **options), params, [grads] * 3)
        results.append(torch.stack([param.detach() for param in params]))
    assert torch.equal(*results)


@few
@given(seed=seeds, kind=st.sampled_from(["SGD", "Adam", "AdamW"]))
def test_to_maximize_is_to_minimize_the_negative(*, seed: int, kind: str) -> None:
    grads = [normal((5,), seed + step) for step in range(3)]
    results = []
    for maximize in (False, True):
        param = Parameter(torch.ones(5, dtype=torch.float64))
        rows: list[list[Tensor | None]] = [[-grad if maximize else grad] for grad in grads]
        run(getattr(optim_core, kind)([param], lr=0.1, maximize=maximize), [param], rows)
        results.append(param.detach())
    assert torch.equal(*results)


@few
@given(seed=seeds, scale=st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**30]))
def test_adam_without_eps_ignores_the_scale_of_the_gradients(*, seed: int, scale: float) -> None:
    grads = [normal((5,), seed + step) for step in range(5)]
    results = []
    for factor in (1.0, scale):
        param = Parameter(torch.zeros(5, dtype=torch.float64))
        rows: list[list[Tensor | None]] = [[grad * factor] for grad in grads]
        run(optim_core.Adam([param], lr=0.1, eps=0), [param], rows)
        results.append(param.detach())
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-15)
