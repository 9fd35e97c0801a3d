"""Results from the papers and the textbooks, reproduced."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core


def descend(optimizer: torch.optim.Optimizer, param: Parameter, curvature: Tensor) -> None:
    """One step on the quadratic 1/2 * sum(curvature * x^2)."""
    param.grad = curvature * param.detach()
    optimizer.step()


@pytest.mark.parametrize(("lr", "momentum"), [(0.018, 0.0), (0.02, 0.5), (0.03, 0.9), (0.01, 0.99)])
def test_momentum_on_an_ill_conditioned_quadratic_follows_its_closed_form(lr: float, momentum: float) -> None:
    """Per coordinate x[t+1] = (1 + mu - lr * c) x[t] - mu x[t-1]: x[t] = a r^t + b s^t with the recurrence's roots.

    Polyak 1964; Sutskever et al. 2013, section 2.
    """
    curvature = torch.logspace(-1, 2, 7, dtype=torch.float64)
    param = Parameter(torch.ones(7, dtype=torch.float64))
    optimizer = optim_core.SGD([param], lr=lr, momentum=momentum)
    middle = (1 + momentum - lr * curvature) / 2
    swing = (middle.square() - momentum).to(torch.complex128).sqrt()
    r, s = middle + swing, middle - swing
    first = 1 - lr * curvature
    a, b = (first - s) / (r - s), (r - first) / (r - s)
    for step in range(1, 101):
        descend(optimizer, param, curvature)
        torch.testing.assert_close(param.detach(), (a * r**step + b * s**step).real, rtol=1e-9, atol=1e-12)


def test_the_best_momentum_beats_the_best_plain_rate_by_the_root_of_the_condition_number() -> None:
    """Rates (sqrt(k) - 1) / (sqrt(k) + 1) a step against (k - 1) / (k + 1), k = 1000 (Polyak 1964)."""
    low, high = 0.1, 100.0
    curvature = torch.tensor([low, high], dtype=torch.float64)

    def error_after(steps: int, lr: float, momentum: float) -> float:
        param = Parameter(torch.ones(2, dtype=torch.float64))
        optimizer = optim_core.SGD([param], lr=lr, momentum=momentum)
        for _ in range(steps):
            descend(optimizer, param, curvature)
        return float(param.detach().norm())

    root = math.sqrt(high / low)
    rate = (root - 1) / (root + 1)
    plain = error_after(300, 2 / (low + high), 0.0)
    heavy_ball = error_after(300, 4 / (math.sqrt(low) + math.sqrt(high)) ** 2, rate**2)
    assert plain == pytest.approx(math.sqrt(2) * ((high - low) / (high + low)) ** 300)
    assert heavy_ball < 3 * 300 * rate**300 < 1e-5 * plain


def rosenbrock_gradient(point: Tensor) -> Tensor:
    x, y = point
    return torch.stack([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


def test_nesterov_is_the_textbooks_look_ahead_under_a_change_of_variables() -> None:
    """Sutskever et al. 2013, eq. 3-4: v' = mu v - lr grad(theta + mu v), theta' = theta + v'.

    torch's parameter (and ours) is the look-ahead point theta + mu v, its buffer -v / lr.
    """
    lr, mu = 2e-4, 0.9
    theta, velocity = torch.tensor([-1.2, 1.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    param = Parameter(theta.clone())
    optimizer = optim_core.SGD([param], lr=lr, momentum=mu, nesterov=True)
    for _ in range(300):
        velocity = mu * velocity - lr * rosenbrock_gradient(theta + mu * velocity)
        theta = theta + velocity
        param.grad = rosenbrock_gradient(param.detach())
        optimizer.step()
        torch.testing.assert_close(param.detach(), theta + mu * velocity, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(optimizer.state[param]["momentum_buffer"], -velocity / lr, rtol=1e-9, atol=1e-8)


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
