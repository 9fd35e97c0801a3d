"""Ours and torch's default loop, step by step: equal in every bit, Adam's too.

Adam needs no tolerance on the plain path: both take the same `torch.sqrt`, which on the CPU is not correctly rounded
but depends on the value alone once its first call in the process is over (`optim_core.adam.settle_sqrt`).
"""

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.optim_core.cases import CASES, Case, assert_same_bits, build, gradients, run, states, zoo

pytestmark = pytest.mark.usefixtures("ieee_root")

NESTEROV = Case("SGD", "nesterov, decay", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1})
AMSGRAD = Case("AdamW", "amsgrad", {"amsgrad": True})
BOTH = pytest.mark.parametrize("case", [NESTEROV, AMSGRAD], ids=str)


def assert_parity(case: Case, dtype: torch.dtype, checkpoints: tuple[int, ...]) -> None:
    ours_params, torch_params = zoo(dtype), zoo(dtype)
    ours, theirs = build(case, ours_params, ours=True), build(case, torch_params, ours=False)
    rows = gradients(dtype, 200)
    done = 0
    for checkpoint in checkpoints:
        run(ours, ours_params, rows[done:checkpoint])
        run(theirs, torch_params, rows[done:checkpoint])
        assert_same_bits(states(ours, ours_params), states(theirs, torch_params))
        done = checkpoint


def assert_walk_parity(case: Case, make: list[Tensor], rows: list[list[Tensor | None]]) -> None:
    """Parity from the values in `make` along `rows`, for parameters that are not the zoo's."""
    ours_params, torch_params = ([Parameter(value.clone()) for value in make] for _ in range(2))
    ours, theirs = build(case, ours_params, ours=True), build(case, torch_params, ours=False)
    run(ours, ours_params, rows)
    run(theirs, torch_params, rows)
    assert_same_bits(states(ours, ours_params), states(theirs, torch_params))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_torch_in_every_bit(case: Case, dtype: torch.dtype) -> None:
    assert_parity(case, dtype, (1, 10, 200))


# The docstrings of `SGD` and `adam_update` say why.
KNOWN_TO_DIFFER = ("SGD-lr that requires grad", "Adam-tensor betas", "AdamW-tensor betas")


@pytest.mark.parametrize("case", [case for case in CASES if str(case) not in KNOWN_TO_DIFFER], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_other_dtypes_equal_torch(case: Case, dtype: torch.dtype) -> None:
    assert_parity(case, dtype, (1, 10))


@BOTH
def test_large_parameters_that_torch_splits_over_threads(case: Case) -> None:
    rng = torch.Generator().manual_seed(0)
    rows: list[list[Tensor | None]] = [[torch.randn(150_001, generator=rng)] for _ in range(5)]
    assert_walk_parity(case, [torch.randn(150_001, generator=rng)], rows)


@BOTH
def test_mixed_dtypes_in_one_group(case: Case) -> None:
    rng = torch.Generator().manual_seed(0)
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex128)
    rows: list[list[Tensor | None]] = [[torch.randn(5, generator=rng).to(dtype) for dtype in dtypes] for _ in range(10)]
    assert_walk_parity(case, [torch.ones(5, dtype=dtype) for dtype in dtypes], rows)


@BOTH
def test_nan_and_infinity_go_where_torch_lets_them(case: Case) -> None:
    bad = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    rows: list[list[Tensor | None]] = [[torch.ones(4)], [bad], [torch.ones(4)]]
    assert_walk_parity(case, [torch.zeros(4)], rows)


@BOTH
def test_tied_parameters_in_a_model(case: Case) -> None:
    def train(*, ours: bool) -> list[tuple[str, Tensor]]:
        torch.manual_seed(0)
        embed, head = torch.nn.Embedding(11, 4), torch.nn.Linear(4, 11, bias=False)
        head.weight = embed.weight
        model = torch.nn.Sequential(embed, torch.nn.Tanh(), head)
        params = list(model.parameters())
        optimizer = build(case, params, ours=ours)
        for batch in torch.arange(33).reshape(3, 11) % 11:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(batch), batch.roll(1)).backward()
            optimizer.step()
        assert len(params) == 1
        return list(states(optimizer, params))

    assert_same_bits(iter(train(ours=True)), iter(train(ours=False)))


@BOTH
def test_a_parameter_listed_twice_warns_and_moves_as_in_torch(case: Case) -> None:
    results = []
    for ours in (True, False):
        param = Parameter(torch.ones(3))
        with pytest.warns(UserWarning, match="duplicate parameters"):
            optimizer = build(case, [param, param], ours=ours)
        run(optimizer, [param], [[torch.arange(3.0)]] * 4)
        results.append(states(optimizer, [param]))
    assert_same_bits(*results)


@BOTH
def test_a_step_writes_no_gradient(case: Case) -> None:
    param = Parameter(torch.ones(3))
    grad = torch.arange(3.0)
    run(build(case, [param], ours=True), [param], [[grad]] * 3)
    assert param.grad is grad
    assert torch.equal(grad, torch.arange(3.0))


@BOTH
def test_without_a_gradient_nothing_moves_and_no_step_is_counted(case: Case) -> None:
    still, moving = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    optimizer = build(case, [still, moving], ours=True)
    run(optimizer, [still, moving], [[None, torch.ones(3)]] * 2)
    assert torch.equal(still, torch.ones(3))
    assert still not in optimizer.state
    assert not torch.equal(moving, torch.ones(3))


@BOTH
def test_the_closure_runs_with_grad_and_its_loss_comes_back(case: Case) -> None:
    results = []
    for ours in (True, False):
        param = Parameter(torch.ones(3))
        optimizer = build(case, [param], ours=ours)

        def closure(param: Parameter = param, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = param.square().sum()
            loss.backward()
            return loss

        losses = [optimizer.step(closure) for _ in range(3)]
        assert losses[0] == 3
        results.append([*states(optimizer, [param]), ("losses", torch.stack(losses))])
    assert_same_bits(iter(results[0]), iter(results[1]))


@pytest.mark.parametrize("hints", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}], ids=str)
@BOTH
def test_hints_for_torchs_implementations_mean_nothing(case: Case, hints: dict[str, bool]) -> None:
    results = []
    for options in (case.options, case.options | hints):
        param = Parameter(torch.ones(3))
        optimizer = build(Case(case.optimizer, "hinted", options), [param], ours=True)
        run(optimizer, [param], [[torch.arange(3.0)]] * 4)
        results.append(states(optimizer, [param]))
    assert_same_bits(*results)
