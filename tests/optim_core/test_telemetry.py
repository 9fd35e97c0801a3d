"""`measure_next_step`: the figures computed by hand, only for the next step, and training goes on unchanged."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core
from optim_core.adam import SAMPLE
from optim_core.telemetry import QUANTILES
from tests.optim_core.pairs import assert_equal, make, written

WHO = pytest.mark.parametrize("who", ["native", "plain"])
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"weight_decay": 0.1, "amsgrad": True}),
]
ALL = pytest.mark.parametrize(("kind", "options"), CASES, ids=str)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(who: str, kind: str, options: dict[str, Any]) -> tuple[torch.optim.Optimizer, list[list[Parameter]]]:
    """Three groups: of several kinds of parameters; with a tensor lr; and without a gradient ever."""
    awkward = [normal(70, seed=1), normal(9, 3, seed=2).t(), normal(40, seed=3)[::2], normal(2, seed=4).double()]
    awkward += [torch.zeros(0), torch.tensor(0.5), normal(5000, seed=5)]
    groups = [[Parameter(value) for value in awkward], [Parameter(normal(33, seed=6))], [Parameter(torch.ones(4))]]
    dicts = [
        {"params": groups[0]},
        {"params": groups[1], "lr": torch.tensor(0.03)},
        {"params": groups[2], "lr": 0.5},
    ]
    return make(who, kind, dicts, lr=0.01, **options), groups


def give(groups: list[list[Parameter]], step: int) -> None:
    for index, param in enumerate([*groups[0], *groups[1]]):
        missing = (step + index) % 4 == 3
        param.grad = None if missing else normal(*param.shape, seed=100 * step + index).to(param.dtype)


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def rates(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> Tensor:
    """The effective rate of every element of a group that has state."""
    found = []
    for param in group["params"]:
        entry = optimizer.state.get(param)
        if entry:
            step, (beta1, beta2) = float(entry["step"]), group["betas"]
            second = entry["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].double().flatten()
            denom = second.sqrt() / math.sqrt(1 - beta2**step) + group["eps"]
            found.append(float(group["lr"]) / (1 - beta1**step) / denom)
    return torch.cat(found)


@WHO
@ALL
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_the_figures_are_those_computed_by_hand(
    who: str, kind: str, options: dict[str, Any], max_norm: float | None
) -> None:
    optimizer, groups = model(who, kind, options)
    for step in range(4):
        give(groups, step)
        if max_norm is not None:
            optimizer.clip_grad_norm(max_norm)
        optimizer.measure_next_step()
        before = [[param.detach().clone() for param in group] for group in groups]
        optimizer.step()
        assert len(optimizer.measured) == 3
        for found, group, old in zip(optimizer.measured, groups, before, strict=True):
            moving = [index for index, param in enumerate(group) if param.grad is not None]
            assert found.grad_norm == pytest.approx(norm([group[i].grad for i in moving]), rel=1e-6)
            assert found.weight_norm == pytest.approx(norm([old[i] for i in moving]), rel=1e-6)
            moved = norm([group[i].detach().double() - old[i].double() for i in moving])
            assert found.update_norm == pytest.approx(moved, rel=1e-6)
            if moving:
                assert found.update_ratio == pytest.approx(moved / found.weight_norm, rel=1e-6)


@ALL
def test_native_and_plain_measure_alike(kind: str, options: dict[str, Any]) -> None:
    results = []
    for who in ("native", "plain"):
        optimizer, groups = model(who, kind, options)
        for step in range(3):
            give(groups, step)
            optimizer.measure_next_step()
            optimizer.step()
        results.append(optimizer.measured)
    for one, other in zip(*results, strict=True):
        for name in ("grad_norm", "update_norm", "weight_norm"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6), name
        assert one.rate_quantiles == other.rate_quantiles


@WHO
@ALL
def test_measuring_changes_no_bit_of_the_training(who: str, kind: str, options: dict[str, Any]) -> None:
    results = []
    for measures in (True, False):
        optimizer, groups = model(who, kind, options)
        for step in range(4):
            give(groups, step)
            if measures:
                optimizer.measure_next_step()
            optimizer.step()
        results.append(written(optimizer, [param for group in groups for param in group]))
    assert_equal(*results)


@WHO
def test_only_the_next_step_is_measured(who: str) -> None:
    param = Parameter(torch.ones(4))
    optimizer = make(who, "SGD", [param], lr=0.5)
    seen = []
    for step in range(4):
        param.grad = torch.full((4,), float(step + 1))
        if step in {1, 3}:
            optimizer.measure_next_step()
        optimizer.step()
        seen.append(optimizer.measured)
    assert seen[0] is None
    assert seen[1] is seen[2]
    assert [seen[1][0].grad_norm, seen[3][0].grad_norm] == [4.0, 8.0]
    assert seen[3][0].update_norm == 4.0


@WHO
def test_a_refused_step_is_not_measured_and_the_next_one_is(who: str) -> None:
    param = Parameter(torch.ones(4))
    optimizer = make(who, "Adam", [param])
    optimizer.measure_next_step()
    param.grad = torch.ones(4).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert optimizer.measured is None
    param.grad = torch.ones(4)
    optimizer.step()
    assert optimizer.measured[0].grad_norm == 2.0


@WHO
@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_quantiles_of_small_groups_are_exact(*, who: str, amsgrad: bool) -> None:
    optimizer, groups = model(who, "Adam", {"amsgrad": amsgrad, "betas": (0.9, 0.5)})
    groups[0].pop()
    optimizer.param_groups[0]["params"].pop()
    for step in range(4):
        give(groups, step)
        for param in groups[0] if step else []:  # so that the largest second moment is an older one
            if param.grad is not None:
                param.grad *= 0.01
        optimizer.measure_next_step()
        optimizer.step()
        for found, group in zip(optimizer.measured[:2], optimizer.param_groups, strict=False):
            if any(optimizer.state.get(param) for param in group["params"]):
                exact = torch.quantile(rates(optimizer, group), torch.tensor(QUANTILES, dtype=torch.float64))
                assert found.rate_quantiles == pytest.approx(exact.tolist(), rel=1e-9)
    assert optimizer.measured[2].rate_quantiles is None


@WHO
def test_the_quantiles_of_a_large_group_are_those_of_an_even_sample(who: str) -> None:
    params = [Parameter(normal(size, seed=size)) for size in (40 * SAMPLE, 1, 10)]
    optimizer = make(who, "Adam", params)
    for step in range(3):
        for param in params:
            param.grad = normal(param.numel(), seed=step)
        optimizer.measure_next_step()
        optimizer.step()
    exact = torch.quantile(rates(optimizer, optimizer.param_groups[0]), torch.tensor(QUANTILES, dtype=torch.float64))
    assert optimizer.measured[0].rate_quantiles == pytest.approx(exact.tolist(), rel=0.05)


@WHO
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_groups_without_an_element_or_a_gradient_are_zero(who: str, kind: str) -> None:
    empty, still = Parameter(torch.ones(0)), Parameter(torch.ones(3))
    optimizer = make(who, kind, [{"params": [empty]}, {"params": [still]}, {"params": []}])
    for _ in range(2):
        empty.grad = torch.ones(0)
        optimizer.measure_next_step()
        optimizer.step()
    for group in optimizer.measured:
        assert (group.grad_norm, group.update_norm, group.weight_norm, group.rate_quantiles) == (0, 0, 0, None)
        assert math.isnan(group.update_ratio)


@WHO
def test_zero_weights_have_no_ratio(who: str) -> None:
    param = Parameter(torch.zeros(4))
    optimizer = make(who, "SGD", [param], lr=0.5)
    param.grad = torch.ones(4)
    optimizer.measure_next_step()
    optimizer.step()
    assert optimizer.measured[0].update_norm == 1.0
    assert math.isnan(optimizer.measured[0].update_ratio)


@WHO
def test_what_is_not_finite_is_told(who: str) -> None:
    param = Parameter(torch.ones(4))
    optimizer = make(who, "Adam", [param])
    param.grad = torch.tensor([math.nan, 1.0, 1.0, 1.0])
    optimizer.measure_next_step()
    optimizer.step()
    assert math.isnan(optimizer.measured[0].grad_norm)
    assert math.isnan(optimizer.measured[0].update_norm)
    assert all(map(math.isnan, optimizer.measured[0].rate_quantiles))
    param.data, param.grad = torch.ones(4), torch.tensor([math.inf, 1.0, 1.0, 1.0])
    optimizer.measure_next_step()
    optimizer.step()
    assert optimizer.measured[0].grad_norm == math.inf


@WHO
def test_after_loading_a_count_of_zero_and_under_another_default_device(who: str) -> None:
    moving, still = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    optimizer = make(who, "Adam", [moving, still])
    optimizer.state[still] = {"step": torch.tensor(0.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    moving.grad = torch.ones(3)
    optimizer.measure_next_step()
    with torch.device("meta"):
        optimizer.step()
    assert optimizer.measured[0].rate_quantiles == pytest.approx([0.01] * 3)


def test_telemetry_is_a_value() -> None:
    one = optim_core.GroupTelemetry(1.0, 2.0, 4.0)
    assert one == optim_core.GroupTelemetry(1.0, 2.0, 4.0, None)
    assert one.update_ratio == 0.5
