"""What works on torch's optimizers works on ours: schedulers, gradient scaler, clipping, hooks, profiler."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import optim_core
from tests.optim_core.cases import Case, assert_same_bits, build, run, states

pytestmark = pytest.mark.usefixtures("ieee_root")

BOTH = pytest.mark.parametrize(
    "case",
    [
        Case("SGD", "momentum", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        Case("Adam", "plain", {"lr": 0.1}),
        Case("AdamW", "tensor lr", {"lr": torch.tensor(0.1)}),
    ],
    ids=str,
)

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Callable[[], Any]]] = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 3).step,
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10).step,
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t)).step,
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=12).step,
    "warm-up then cosine": lambda optimizer: (
        lr_scheduler.SequentialLR(
            optimizer,
            [
                lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
                lr_scheduler.CosineAnnealingLR(optimizer, 7),
            ],
            [3],
        ).step
    ),
    "plateau": lambda optimizer: partial(lr_scheduler.ReduceLROnPlateau(optimizer, patience=1).step, 1.0),
}


def row(step: int) -> list[list[Tensor | None]]:
    return [[torch.randn(4, generator=torch.Generator().manual_seed(step))]]


@BOTH
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_change_the_rate_as_on_torch(case: Case, scheduler: str) -> None:
    results = []
    for ours in (True, False):
        param = Parameter(torch.ones(4))
        optimizer = build(case, [param], ours=ours)
        change_rate = SCHEDULERS[scheduler](optimizer)
        rates = []
        for step in range(10):
            run(optimizer, [param], row(step))
            change_rate()
            rates.append(float(optimizer.param_groups[0]["lr"]))
        assert len(set(rates)) > 1
        results.append([*states(optimizer, [param]), ("rates", torch.tensor(rates))])
    assert_same_bits(iter(results[0]), iter(results[1]))


@BOTH
def test_the_gradient_scaler_skips_an_overflow_and_unscales_as_on_torch(case: Case) -> None:
    results = []
    for ours in (True, False):
        param = Parameter(torch.ones(4))
        optimizer = build(case, [param], ours=ours)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        for step, factor in enumerate([1.0, float("inf"), 1.0, 1.0]):
            optimizer.zero_grad()
            scaler.scale((param * (step + 1)).square().sum() * factor).backward()
            before = param.detach().clone()
            scaler.step(optimizer)
            scaler.update()
            assert torch.equal(before, param) == (factor != 1)
        assert scaler.get_scale() == 2.0**10
        results.append(states(optimizer, [param]))
    assert_same_bits(*results)


@BOTH
def test_clip_grad_norm_bounds_what_the_step_sees(case: Case) -> None:
    results = []
    for ours in (True, False):
        params = [Parameter(torch.ones(3)), Parameter(torch.ones(2))]
        optimizer = build(case, params, ours=ours)
        for param in params:
            param.grad = torch.full_like(param.detach(), 10.0)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        results.append(states(optimizer, params))
    assert_same_bits(*results)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_step_hooks_run_once_in_torchs_order(kind: str) -> None:
    param = Parameter(torch.ones(2))
    optimizer = getattr(optim_core, kind)([param])
    calls: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("global pre")),
        optimizer.register_step_pre_hook(lambda *_: calls.append(f"pre {param[0].item() == 1}")),
        optimizer.register_step_post_hook(lambda *_: calls.append(f"post {param[0].item() < 1}")),
        register_optimizer_step_post_hook(lambda *_: calls.append("global post")),
    ]
    try:
        run(optimizer, [param], [[torch.ones(2)]])
    finally:
        for handle in handles:
            handle.remove()
    assert calls == ["global pre", "pre True", "post True", "global post"]
    run(optimizer, [param], [[torch.ones(2)]])
    assert len(calls) == 4


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_the_profiler_names_the_step(kind: str) -> None:
    param = Parameter(torch.ones(2))
    optimizer = getattr(optim_core, kind)([param])
    with torch.autograd.profiler.profile() as profile:
        run(optimizer, [param], [[torch.ones(2)]])
        optimizer.zero_grad()
    names = [event.name for event in profile.function_events]
    assert names.count(f"Optimizer.step#{kind}.step") == 1
    assert f"Optimizer.zero_grad#{kind}.zero_grad" in names


@BOTH
def test_a_group_added_later_trains_with_its_own_options(case: Case) -> None:
    results = []
    for ours in (True, False):
        params = [Parameter(torch.ones(4)), Parameter(torch.ones(4))]
        optimizer = build(case, params[:1], ours=ours)
        run(optimizer, params[:1], row(0))
        optimizer.add_param_group({"params": params[1:], "lr": 0.5})
        run(optimizer, params, [[torch.ones(4), torch.ones(4)]])
        results.append(states(optimizer, params))
    assert_same_bits(*results)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(*, set_to_none: bool) -> None:
    param = Parameter(torch.ones(2))
    optimizer = optim_core.SGD([param])
    param.grad = torch.ones(2)
    optimizer.zero_grad(set_to_none=set_to_none)
    assert param.grad is None if set_to_none else torch.equal(param.grad, torch.zeros(2))
