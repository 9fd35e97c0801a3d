"""What papers say of Adam, AMSGrad and decoupled decay, reproduced; and where the papers are left."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core


def zeros(*shape: int) -> Parameter:
    return Parameter(torch.zeros(shape, dtype=torch.float64))


def steps_taken(optimizer: torch.optim.Optimizer, param: Parameter, grads: list[float]) -> list[float]:
    """What each gradient moved the parameter's one element by, downhill positive."""
    moves = []
    for grad in grads:
        before = param.item()
        param.grad = torch.full_like(param, grad)
        optimizer.step()
        moves.append(before - param.item())
    return moves


@pytest.mark.parametrize(("amsgrad", "end"), [(False, 1.0), (True, -1.0)])
def test_adam_drifts_to_the_wrong_end_and_amsgrad_does_not(*, amsgrad: bool, end: float) -> None:
    """Reddi, Kale & Kumar 2018, theorem 1: f(x) = C x at every third step, else -x, on [-1, 1]; the optimum is -1.

    C = 3, beta1 = 0, beta2 = 1 / (1 + C^2), the rate falls as 1 / sqrt(t).
    """
    large = 3.0
    param = Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optim_core.Adam([param], lr=0.2, betas=(0.0, 1 / (1 + large**2)), amsgrad=amsgrad)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / math.sqrt(t + 1))
    tail = []
    for t in range(3000):
        param.grad = torch.full((1,), large if t % 3 == 0 else -1.0, dtype=torch.float64)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            param.clamp_(-1, 1)
        tail.append(param.item())
    assert sum(tail[-300:]) / 300 == pytest.approx(end, abs=0.05)


def test_decoupled_decay_shrinks_by_lr_times_decay_whatever_the_gradients_size() -> None:
    """Loshchilov & Hutter 2019, proposition 1's contrast: L2 in Adam is divided by the gradient's size, AdamW's not."""

    def after(*, decoupled: bool, scale: float) -> float:
        with_decay, without = Parameter(torch.ones(1)), Parameter(torch.ones(1))
        groups = [{"params": [with_decay], "weight_decay": 0.1}, {"params": [without]}]
        optimizer = optim_core.Adam(groups, lr=0.01, decoupled_weight_decay=decoupled)
        with_decay.grad, without.grad = torch.full((1,), scale), torch.full((1,), scale)
        for _ in range(10):
            optimizer.step()
        return float(without.detach() - with_decay.detach())

    assert after(decoupled=True, scale=1e3) == pytest.approx(after(decoupled=True, scale=1.0), rel=1e-3)
    assert after(decoupled=True, scale=1.0) == pytest.approx(10 * 0.01 * 0.1, rel=0.06)
    assert abs(after(decoupled=False, scale=1e3)) < 1e-5


def test_bias_correction_makes_the_first_steps_full_size() -> None:
    """Kingma & Ba 2015, section 3: under a constant gradient every step is lr, from the first on."""
    param = Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optim_core.Adam([param], lr=0.01)
    for step in range(1, 51):
        param.grad = torch.full((1,), 5.0, dtype=torch.float64)
        optimizer.step()
        assert param.item() == pytest.approx(-0.01 * step, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("amsgrad", "end"), [(False, 1.0), (True, -1.0)])
def test_with_its_usual_momentum_too_adam_drifts_to_the_wrong_end(*, amsgrad: bool, end: float) -> None:
    """Reddi, Kale & Kumar 2018, section 5: 1010 x in the first of every 101 rounds, else -10 x; betas 0.9, 0.99."""
    param = zeros(1)
    optimizer = optim_core.Adam([param], betas=(0.9, 0.99), amsgrad=amsgrad)
    for t in range(20_000):
        param.grad = torch.full_like(param, 1010.0 if t % 101 == 0 else -10.0)
        optimizer.param_groups[0]["lr"] = 0.5 / math.sqrt(t + 1)
        optimizer.step()
        with torch.no_grad():
            param.clamp_(-1, 1)
    assert param.item() == pytest.approx(end, abs=0.1)


RECURRENCES: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.005, "betas": (0.8, 0.95), "eps": 1e-3},
    {"lr": 0.1, "amsgrad": True, "betas": (0.9, 0.9)},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.1, "weight_decay": 0.01, "decoupled_weight_decay": True},
]


@pytest.mark.parametrize("options", RECURRENCES, ids=str)
def test_adam_on_rosenbrock_follows_the_papers_algorithm_written_in_floats(options: dict[str, Any]) -> None:
    """Kingma & Ba 2015, algorithm 1, coordinate by coordinate, with the bias-corrected estimates spelled out."""
    param = Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer = optim_core.Adam([param], **options)
    lr, eps, decay = options["lr"], options.get("eps", 1e-8), options.get("weight_decay", 0.0)
    beta1, beta2 = options.get("betas", (0.9, 0.999))
    point, m, v, largest = [-1.2, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for t in range(1, 301):
        (x, y), (a, b) = point, param.tolist()
        param.grad = torch.tensor([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)], dtype=torch.float64)
        optimizer.step()
        for i, slope in enumerate((-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x))):
            decoupled = options.get("decoupled_weight_decay", False)
            g = slope if decoupled else slope + decay * point[i]
            point[i] -= lr * decay * point[i] if decoupled else 0.0
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            largest[i] = max(largest[i], v[i])
            second = largest[i] if options.get("amsgrad") else v[i]
            point[i] -= lr * (m[i] / (1 - beta1**t)) / (math.sqrt(second / (1 - beta2**t)) + eps)
        assert param.tolist() == pytest.approx(point, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_finds_the_end_of_rosenbrocks_valley(*, amsgrad: bool) -> None:
    param = Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer = optim_core.Adam([param], lr=0.05, amsgrad=amsgrad)
    for _ in range(5000):
        x, y = param.detach()
        param.grad = torch.stack([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])
        optimizer.step()
    torch.testing.assert_close(param.detach(), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-3)


def corrected(optimizer: torch.optim.Optimizer, param: Parameter) -> tuple[Tensor, Tensor]:
    """m and v with their bias taken out."""
    state, (beta1, beta2) = optimizer.state[param], optimizer.param_groups[0]["betas"]
    t = state["step"].item()
    return state["exp_avg"] / (1 - beta1**t), state["exp_avg_sq"] / (1 - beta2**t)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])
def test_under_a_constant_gradient_the_corrected_moments_are_it_and_its_square(betas: tuple[float, float]) -> None:
    grad = torch.logspace(-6, 3, 10, dtype=torch.float64)
    param = zeros(10)
    optimizer = optim_core.Adam([param], betas=betas)
    for _ in range(100):
        param.grad = grad
        optimizer.step()
        first, second = corrected(optimizer, param)
        torch.testing.assert_close(first, grad, rtol=1e-12, atol=0)
        torch.testing.assert_close(second, grad.square(), rtol=1e-12, atol=0)


def test_the_corrected_moments_of_a_random_gradient_are_unbiased_from_the_first_step_on() -> None:
    """Kingma & Ba 2015, section 3: E m = E g (1 - beta1^t), E v = E g^2 (1 - beta2^t). Over 200,000 draws."""
    rng, n = torch.Generator().manual_seed(0), 200_000
    param = zeros(n)
    optimizer = optim_core.Adam([param])
    for t in range(1, 21):
        param.grad = 0.5 + torch.randn(n, generator=rng, dtype=torch.float64)
        optimizer.step()
        if t in {1, 2, 5, 20}:
            first, second = corrected(optimizer, param)
            assert first.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(n))
            assert second.mean().item() == pytest.approx(1.25, abs=5 * 1.8 / math.sqrt(n))


@pytest.mark.parametrize("eps", [1e-3, 1.0, 100.0])
def test_eps_stands_outside_the_root_and_after_the_correction(eps: float) -> None:
    """Under a constant g every step is lr * g / (|g| + eps); inside the root, or corrected too, eps gives another."""
    optimizer = optim_core.Adam([param := zeros(1)], lr=0.1, eps=eps)
    for move in steps_taken(optimizer, param, [0.5] * 20):
        assert move == pytest.approx(0.1 * 0.5 / (0.5 + eps), rel=1e-12)


def test_a_gradient_after_long_silence_makes_the_step_that_the_paper_calls_the_largest() -> None:
    """Kingma & Ba 2015, section 2.1: lr (1 - beta1) / sqrt(1 - beta2), 3.16 lr by default."""
    optimizer = optim_core.Adam([param := zeros(1)], lr=0.1)
    last = steps_taken(optimizer, param, [0.0] * 10_000 + [7.0])[-1]
    assert last == pytest.approx(0.1 * 0.1 / math.sqrt(0.001), rel=1e-3)


def test_growing_gradients_make_longer_steps_than_the_paper_allows_up_to_a_sharper_bound() -> None:
    """m^2 / v <= (1 - beta1)^2 / ((1 - beta2) (1 - beta1^2 / beta2)) by Cauchy-Schwarz.

    Reached by g ~ (beta2 / beta1)^t. Kingma & Ba 2015, section 2.1, has lr for these betas, as 1 - beta1 is not more
    than sqrt(1 - beta2).
    """
    beta1, beta2 = 0.9, 0.99
    optimizer = optim_core.Adam([param := zeros(1)], lr=1.0, betas=(beta1, beta2), eps=1e-30)
    growing = [(beta2 / beta1) ** t for t in range(150)]
    longest = max(steps_taken(optimizer, param, [0.0] * 3000 + growing))
    bound = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
    assert longest == pytest.approx(bound, rel=1e-3)
    assert bound > 2.3


def test_amsgrads_rate_may_rise_while_the_correction_fades() -> None:
    """The maximum is taken before the correction, as in torch: one large gradient counts less and less.

    In the paper's algorithm 2, which corrects nothing, the rate never rises.
    """
    optimizer = optim_core.Adam([param := zeros(1)], lr=0.1, betas=(0.0, 0.999), amsgrad=True)
    moves = steps_taken(optimizer, param, [10.0] + [0.1] * 99)
    assert moves[0] / 10 == pytest.approx(0.1 / 10)
    assert moves[1:] == sorted(moves[1:])
    assert moves[-1] / 0.1 == pytest.approx(0.1 / 10 * math.sqrt((1 - 0.999**100) / (1 - 0.999)), rel=1e-6)
