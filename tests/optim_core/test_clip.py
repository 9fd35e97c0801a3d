"""`clip_grad_norm`: what `torch.nn.utils.clip_grad_norm_` would do to the next step, and the life of its factor."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from tests.optim_core.pairs import assert_equal, make, written

OURS = pytest.mark.parametrize("who", ["native", "plain"])
KINDS = pytest.mark.parametrize(
    ("kind", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {"eps": 1e-3})], ids=["SGD", "Adam"]
)
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def params_with(grads: list[Tensor | None]) -> list[Parameter]:
    params = []
    for grad in grads:
        params.append(Parameter(torch.zeros(3) if grad is None else torch.zeros_like(grad, layout=torch.strided)))
        params[-1].grad = grad
    return params


def one(who: str, grad: Tensor | None, **options: Any) -> tuple[torch.optim.Optimizer, Parameter]:
    (param,) = params_with([grad])
    return make(who, "SGD", [param], lr=1.0, **options), param


def mixed(dtypes: tuple[torch.dtype, ...]) -> list[Tensor | None]:
    rng = torch.Generator().manual_seed(0)
    grads: list[Tensor | None] = [torch.randn(70, generator=rng).to(dtype) for dtype in dtypes]
    grads += [torch.randn(40, generator=rng)[::2], None, torch.zeros(0), torch.tensor(3.0)]
    grads += [torch.randn(2, 3, 4, 4, generator=rng).to(memory_format=torch.channels_last)]
    return [*grads, torch.randn(6, generator=rng, dtype=torch.complex64), torch.tensor(0.5).expand(7)]


@OURS
@KINDS
@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1.0, 15.0, 1e3, math.inf])
@pytest.mark.parametrize(("dtypes", "tolerance"), [(FLOATS[:2], 1e-5), (FLOATS, 2e-2)], ids=["wide", "all dtypes"])
def test_the_step_sees_what_torchs_clip_leaves(
    *, who: str, kind: str, options: dict[str, Any], max_norm: float, dtypes: tuple[torch.dtype, ...], tolerance: float
) -> None:
    """torch rounds the norm of a bfloat16 gradient to bfloat16, so that with one its factor is off by up to 2^-9."""
    ours, theirs = params_with(mixed(dtypes)), params_with(mixed(dtypes))
    optimizer, peer = make(who, kind, ours, lr=0.1, **options), make("torch", kind, theirs, lr=0.1, **options)
    theirs[-1].grad = theirs[-1].grad.clone()  # torch can't scale an expanded gradient in place
    for _ in range(3):
        kept = [None if param.grad is None else param.grad.clone() for param in theirs]
        norm, expected = optimizer.clip_grad_norm(max_norm), clip_grad_norm_(theirs, max_norm)
        assert norm.dim() == 0
        torch.testing.assert_close(norm.double(), expected.double(), rtol=tolerance, atol=0)
        optimizer.step()
        peer.step()
        for param, other, grad in zip(ours, theirs, kept, strict=True):
            torch.testing.assert_close(param.detach(), other.detach(), rtol=tolerance, atol=tolerance * 1e-2)
            assert grad is None or torch.equal(param.grad, grad)
            other.grad = grad


@OURS
def test_the_norm_is_that_of_all_groups_in_float64(who: str) -> None:
    grads = [torch.full((4,), 1.0), torch.full((3,), 2.0, dtype=torch.float64)]
    params = params_with(grads)
    optimizer = make(who, "SGD", [{"params": [param]} for param in params])
    norm = optimizer.clip_grad_norm(1.0)
    assert norm.dtype == torch.float64
    assert float(norm) == pytest.approx(4.0, rel=1e-12)
    assert one(who, torch.ones(4))[0].clip_grad_norm(1.0).dtype == torch.float32
    assert one(who, torch.ones(4, dtype=torch.complex128))[0].clip_grad_norm(1.0).dtype == torch.float64


@OURS
@KINDS
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_factor_that_is_a_power_of_two_is_exact(
    who: str, kind: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """The bits of gradients that were scaled before."""
    results = []
    for clip in (True, False):
        param = Parameter(torch.linspace(1, 2, 4097).to(dtype))
        optimizer = make(who, kind, [param], lr=0.1, **options)
        for step in range(3):
            grad = torch.randn(4097, generator=torch.Generator().manual_seed(step)).to(dtype)
            param.grad = grad if clip else grad * 0.125
            if clip:
                optimizer._scales = [0.125]
            optimizer.step()
        results.append(written(optimizer, [param]))
    assert_equal(*results)


@OURS
def test_within_the_norm_nothing_is_scaled(who: str) -> None:
    for max_norm in (3.0, math.inf):
        optimizer, param = one(who, torch.tensor([2.0, 2.0, 1.0 - 1e-5]))
        assert float(optimizer.clip_grad_norm(max_norm)) < 3
        optimizer.step()
        assert torch.equal(param.detach(), -torch.tensor([2.0, 2.0, 1.0 - 1e-5]))


@OURS
def test_the_factor_serves_one_step(who: str) -> None:
    optimizer, param = one(who, torch.tensor([8.0]))
    optimizer.clip_grad_norm(4.0)
    moves = []
    for _ in range(2):
        before = float(param.detach())
        optimizer.step()
        moves.append(before - float(param.detach()))
    assert moves == [pytest.approx(4.0, rel=1e-6), pytest.approx(8.0, rel=1e-6)]
    assert torch.equal(param.grad, torch.tensor([8.0]))


@OURS
@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_drops_the_factor(*, who: str, set_to_none: bool) -> None:
    optimizer, param = one(who, torch.tensor([8.0]))
    optimizer.clip_grad_norm(4.0)
    optimizer.zero_grad(set_to_none=set_to_none)
    param.grad = torch.tensor([8.0])
    optimizer.step()
    assert float(param.detach()) == -8.0


@OURS
def test_a_second_clip_replaces_the_first(who: str) -> None:
    for second, moved in ((2.0, 2.0), (16.0, 8.0), (math.inf, 8.0)):
        optimizer, param = one(who, torch.tensor([8.0]))
        optimizer.clip_grad_norm(4.0)
        assert float(optimizer.clip_grad_norm(second)) == 8.0
        optimizer.step()
        assert float(param.detach()) == pytest.approx(-moved, rel=1e-6)


@OURS
def test_a_group_added_after_the_clip_is_not_scaled(who: str) -> None:
    optimizer, param = one(who, torch.tensor([8.0]))
    optimizer.clip_grad_norm(4.0)
    late = Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.tensor([8.0])
    optimizer.step()
    assert [float(param.detach()), float(late.detach())] == [pytest.approx(-4.0, rel=1e-6), -8.0]


@OURS
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 1.0, math.inf])
def test_what_is_not_finite_goes_where_torchs_clip_sends_it(who: str, bad: float, max_norm: float) -> None:
    grad = torch.tensor([bad, 1.0, 0.0])
    optimizer, param = one(who, grad.clone())
    peer, other = one("torch", grad.clone())
    norm, expected = optimizer.clip_grad_norm(max_norm), clip_grad_norm_([other], max_norm)
    torch.testing.assert_close(norm, expected, equal_nan=True)
    optimizer.step()
    peer.step()
    torch.testing.assert_close(param.detach(), other.detach(), equal_nan=True, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=f"norm is {float(expected)}; they were not clipped"):
        optimizer.clip_grad_norm(max_norm, error_if_nonfinite=True)


@OURS
@pytest.mark.parametrize("max_norm", [-1.0, -1e-300, math.nan, -math.inf])
def test_a_bound_that_cannot_be_is_an_error_and_drops_nothing(who: str, max_norm: float) -> None:
    optimizer, param = one(who, torch.tensor([8.0]))
    optimizer.clip_grad_norm(4.0)
    with pytest.raises(ValueError, match=f"max_norm={max_norm} must be at least 0"):
        optimizer.clip_grad_norm(max_norm)
    optimizer.step()
    assert float(param.detach()) == pytest.approx(-4.0, rel=1e-6)


@OURS
def test_no_gradients_and_zero_gradients(who: str) -> None:
    for grad in (None, torch.zeros(3), torch.zeros(0)):
        for max_norm in (0.0, 1.0):
            optimizer, param = one(who, grad)
            assert float(optimizer.clip_grad_norm(max_norm, error_if_nonfinite=True)) == 0.0
            optimizer.step()
            assert not bool(param.detach().any())


@OURS
def test_huge_and_tiny_gradients_neither_overflow_nor_vanish(who: str) -> None:
    for size in (1e30, 1e-30):
        optimizer, param = one(who, torch.full((4,), size))
        assert float(optimizer.clip_grad_norm(1.0)) == pytest.approx(2 * size, rel=1e-6)
        optimizer.step()
        expected = -0.5 if size > 1 else -size
        torch.testing.assert_close(param.detach(), torch.full((4,), expected), rtol=1e-6, atol=0)


@OURS
def test_sparse_gradients_count_and_are_scaled(who: str) -> None:
    grad = torch.sparse_coo_tensor([[0, 2, 0]], [3.0, 8.0, 3.0], (4,), check_invariants=True)
    optimizer, param = one(who, grad)
    assert float(optimizer.clip_grad_norm(5.0)) == 10.0  # 6 and 8: entries of one place add up
    optimizer.step()
    torch.testing.assert_close(param.detach(), torch.tensor([-3.0, 0.0, -4.0, 0.0]), rtol=1e-6, atol=0)


@OURS
def test_after_the_scaler_has_unscaled(who: str) -> None:
    optimizer, param = one(who, None)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale((param * 8).sum()).backward()
    scaler.unscale_(optimizer)
    assert float(optimizer.clip_grad_norm(1.0)) == pytest.approx(8 * 3**0.5)
    scaler.step(optimizer)
    assert float(param.detach().norm()) == pytest.approx(1.0, rel=1e-6)


@OURS
def test_under_another_default_device(who: str) -> None:
    optimizer, _ = one(who, torch.tensor([8.0]))
    with torch.device("meta"):
        assert float(optimizer.clip_grad_norm(4.0)) == 8.0
