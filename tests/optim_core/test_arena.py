"""The arena: each replica moves as it would alone, bit for bit, and what can't work is refused."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core
from optim_core.arena import Arena
from tests.optim_core.cases import assert_same_bits

SHAPES = [(7, 5), (7,), (3, 7), (1,)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"lr": 1.0, "momentum": 0.5, "dampening": 0.2, "weight_decay": 0.1, "maximize": True},
    ],
    "Adam": [
        {"lr": 0.1},
        {"lr": 1e-3, "betas": (0.5, 0.9), "amsgrad": True, "weight_decay": 0.1},
        {"lr": 0.01, "eps": 1e-3, "maximize": True},
    ],
    "AdamW": [{"lr": 0.1}, {"lr": 0.01, "weight_decay": 0.5}, {"lr": 0.01, "amsgrad": True}],
}
KINDS = pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
N = 3


def values(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(N, *shape, generator=rng, dtype=dtype) for shape in SHAPES]


def arena_of(kind: str, dtype: torch.dtype = torch.float32) -> Arena:
    return Arena(getattr(optim_core, kind), map(Parameter, values(0, dtype)), ROWS[kind])


def backward(arena: Arena, seed: int) -> None:
    """Gradients through autograd: those of the sum of param * values."""
    products = [(p * v.to(p.dtype)).sum() for p, v in zip(arena.params, values(seed), strict=True)]
    torch.stack(products).sum().backward()


class Alone:
    """One replica, trained by the optimizer itself."""

    def __init__(self, kind: str, replica: int, dtype: torch.dtype = torch.float32) -> None:
        self.replica = replica
        self.params = [Parameter(value[replica].clone()) for value in values(0, dtype)]
        self.optimizer = getattr(optim_core, kind)(self.params, **ROWS[kind][replica])

    def gradients(self, seed: int) -> None:
        for param, value in zip(self.params, values(seed), strict=True):
            param.grad = value[self.replica].to(param.dtype)

    def step(self, seed: int) -> None:
        self.gradients(seed)
        self.optimizer.step()

    def everything(self) -> list[tuple[str, Tensor]]:
        return flattened(self.params, self.optimizer.state_dict())


def flattened(params: list[Any], state_dict: dict[str, Any]) -> list[tuple[str, Tensor]]:
    state = [(f"{i} {key}", value) for i, entry in state_dict["state"].items() for key, value in entry.items()]
    return [(str(i), param.detach()) for i, param in enumerate(params)] + state


def of_replica(arena: Arena, replica: int) -> list[tuple[str, Tensor]]:
    return flattened([param[replica] for param in arena.params], arena.state_dict(replica))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_each_replica_moves_as_alone(kind: str, dtype: torch.dtype) -> None:
    arena, alone = arena_of(kind, dtype), [Alone(kind, replica, dtype) for replica in range(N)]
    for seed in range(1, 6):
        arena.zero_grad()
        backward(arena, seed)
        arena.step()
        for one in alone:
            one.step(seed)
    for replica, one in enumerate(alone):
        assert_same_bits(iter(of_replica(arena, replica)), iter(one.everything()), strides=False)
        state_dict, expected = arena.state_dict(replica), one.optimizer.state_dict()
        assert state_dict["param_groups"] == expected["param_groups"]


@KINDS
def test_each_replica_is_clipped_by_its_own_norm(kind: str) -> None:
    arena, alone = arena_of(kind), [Alone(kind, replica) for replica in range(N)]
    limits = [0.5, float("inf"), 3.0]
    for seed in range(1, 4):
        arena.zero_grad()
        backward(arena, seed)
        norms = arena.clip_grad_norm(limits)
        arena.step()
        for one, limit, norm in zip(alone, limits, norms, strict=True):
            one.gradients(seed)
            torch.testing.assert_close(one.optimizer.clip_grad_norm(limit), norm)
            one.optimizer.step()
    for replica, one in enumerate(alone):
        # The norm is summed in another order, so that its last bit may differ, and with it the factor's.
        torch.testing.assert_close(dict(of_replica(arena, replica)), dict(one.everything()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limits", [[1.0], [1.0, 1.0, -1.0], [1.0, float("nan"), 1.0]], ids=str)
def test_wrong_limits_are_refused(limits: list[float]) -> None:
    arena = arena_of("SGD")
    backward(arena, 1)
    with pytest.raises(ValueError, match="max_norms must be 3 numbers"):
        arena.clip_grad_norm(limits)


def test_a_row_of_options_changes_one_replica() -> None:
    arena = arena_of("SGD")
    before = [param.detach().clone() for param in arena.params]
    arena.rows[1]["lr"] = 0.0
    backward(arena, 1)
    arena.step()
    moved = [not torch.equal(arena.params[0][replica], before[0][replica]) for replica in range(N)]
    assert moved == [True, False, True]


def test_a_gradient_set_by_hand_is_copied_in() -> None:
    expected, arena = arena_of("Adam"), arena_of("Adam")
    for seed in (1, 2):
        for one in (expected, arena):
            one.zero_grad()
        backward(expected, seed)
        for param, value in zip(arena.params, values(seed), strict=True):
            param.grad = value
        for one in (expected, arena):
            one.step()
    assert all(torch.equal(a, b) for a, b in zip(expected.params, arena.params, strict=True))


def test_a_missing_gradient_is_an_error_and_nothing_moves() -> None:
    arena = arena_of("Adam")
    before = [param.detach().clone() for param in arena.params]
    backward(arena, 1)
    arena.params[2].grad = None
    with pytest.raises(RuntimeError, match="parameter 2 has no gradient"):
        arena.step()
    assert all(torch.equal(a, b) for a, b in zip(before, arena.params, strict=True))


def test_a_reassigned_parameter_is_an_error() -> None:
    arena = arena_of("SGD")
    backward(arena, 1)
    arena.params[1].data = arena.params[1].data.clone()
    with pytest.raises(RuntimeError, match=r"parameter 1 was re-assigned .* make a new Arena"):
        arena.step()


def test_backward_through_an_old_weight_raises_after_the_step() -> None:
    arena = arena_of("SGD")
    backward(arena, 1)
    loss = arena.params[0].square().sum()
    arena.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@KINDS
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_goes_on_alone_in_an_arena_of_its_own(kind: str, how: str) -> None:
    arena = arena_of(kind)
    backward(arena, 1)
    arena.step()
    copied = copy.deepcopy(arena) if how == "deepcopy" else pickle.loads(pickle.dumps(arena))
    before = [of_replica(arena, replica) for replica in range(N)]
    for one in (copied, arena):
        one.zero_grad()
        backward(one, 2)
        one.step()
        if one is copied:
            kept = [dict(old)["0"] for old in before]
            assert all(torch.equal(a, b) for a, b in zip(kept, arena.params[0], strict=True))
    for replica in range(N):
        assert_same_bits(iter(of_replica(copied, replica)), iter(of_replica(arena, replica)))


@KINDS
def test_a_replica_goes_on_from_the_state_dict_of_one_alone(kind: str) -> None:
    alone, arena = Alone(kind, 1), arena_of(kind)
    for seed in (1, 2):
        alone.step(seed)
    backward(arena, 5)
    arena.step()
    others = [of_replica(arena, replica) for replica in (0, 2)]
    with torch.no_grad():
        for stacked, param in zip(arena.params, alone.params, strict=True):
            stacked[1] = param
    arena.load_state_dict(1, copy.deepcopy(alone.optimizer.state_dict()))
    for replica, expected in zip((0, 2), others, strict=True):
        assert_same_bits(iter(of_replica(arena, replica)), iter(expected))
    arena.zero_grad()
    backward(arena, 3)
    arena.step()
    alone.step(3)
    assert_same_bits(iter(of_replica(arena, 1)), iter(alone.everything()), strides=False)


def broken(change: str) -> dict[str, Any]:
    arena = arena_of("Adam")
    backward(arena, 1)
    arena.step()
    state_dict = arena.state_dict(0)
    match change:
        case "a group too many":
            state_dict["param_groups"] *= 2
        case "a parameter too few":
            state_dict["param_groups"][0]["params"].pop()
        case "one without state":
            del state_dict["state"][2]
        case "unequal steps":
            state_dict["state"][2]["step"] += 1
        case "another shape":
            state_dict["state"][0]["exp_avg"] = torch.zeros(2)
    return state_dict


@pytest.mark.parametrize(
    "change",
    ["a group too many", "a parameter too few", "one without state", "unequal steps", "another shape"],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(change: str) -> None:
    arena = arena_of("Adam")
    backward(arena, 2)
    arena.step()
    before = of_replica(arena, 0)
    with pytest.raises(ValueError, match=r"param group|have state|elements"):
        arena.load_state_dict(0, broken(change))
    assert_same_bits(iter(of_replica(arena, 0)), iter(before))


def test_a_fresh_state_dict_clears_the_replica() -> None:
    arena, fresh = arena_of("Adam"), arena_of("Adam")
    backward(arena, 2)
    arena.step()
    arena.load_state_dict(1, fresh.state_dict(1))
    assert arena.state_dict(1)["state"] == {}
    assert arena.state_dict(2)["state"]


@pytest.mark.parametrize(
    ("params", "rows", "reason"),
    [
        ([], [{}], "at least one parameter"),
        ([torch.ones(2, 3)], [], "one row"),
        ([torch.ones(2, 3)], [{}] * 3, r"must be \[3, ...\]"),
        ([torch.ones(())], [{}], r"must be \[1, ...\]"),
        ([torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64)], [{}] * 2, "parameter 1 is torch.float64"),
        ([torch.ones(2, 3, dtype=torch.complex64)], [{}] * 2, "parameter 0 is torch.complex64"),
        ([torch.ones(2, 3)], [{}, {"lr": -1.0}], "Invalid learning rate"),
        ([torch.ones(2, 3)], [{}, {"differentiable": True}], "differentiable"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(params: list[Tensor], rows: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Arena(optim_core.SGD, map(Parameter, params), rows)


def test_measured_tells_each_replica() -> None:
    arena = arena_of("Adam")
    backward(arena, 1)
    arena.measure_next_step()
    arena.step()
    assert arena.measured is not None
    norms = [torch.cat([v[replica].reshape(-1) for v in values(1)]).norm().item() for replica in range(N)]
    assert [one.grad_norm for one in arena.measured] == pytest.approx(norms)
