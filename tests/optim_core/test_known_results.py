"""What papers and textbooks say of gradient descent, momentum and Nesterov, reproduced."""

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


@pytest.mark.parametrize(("lr", "momentum"), [(0.012, 0.3), (0.009, 0.9), (0.013, 0.9), (0.005, 0.99)])
def test_nesterov_on_an_ill_conditioned_quadratic_follows_its_closed_form(lr: float, momentum: float) -> None:
    """Per coordinate, with q = 1 - lr * c: x[t+1] = (1 + mu) q x[t] - mu q x[t-1] = a r^t + b s^t in its roots."""
    curvature = torch.logspace(-1, 2, 7, dtype=torch.float64)
    param = Parameter(torch.ones(7, dtype=torch.float64))
    optimizer = optim_core.SGD([param], lr=lr, momentum=momentum, nesterov=True)
    q = 1 - lr * curvature
    middle = (1 + momentum) * q / 2
    swing = (middle.square() - momentum * q).to(torch.complex128).sqrt()
    r, s = middle + swing, middle - swing
    first = (1 + momentum) * q - momentum
    a, b = (first - s) / (r - s), (r - first) / (r - s)
    for step in range(1, 101):
        descend(optimizer, param, curvature)
        torch.testing.assert_close(param.detach(), (a * r**step + b * s**step).real, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_largest_stable_rate_is_what_the_roots_say(*, momentum: float, nesterov: bool) -> None:
    """lr * c < 2 (1 + mu), and with Nesterov only < 2 (1 + mu) / (1 + 2 mu): where both roots are within 1."""
    limit = 2 * (1 + momentum) / ((1 + 2 * momentum) if nesterov else 1)
    curvature = torch.ones(1, dtype=torch.float64)

    def distance_after(steps: int, lr: float) -> float:
        param = Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = optim_core.SGD([param], lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
        for _ in range(steps):
            descend(optimizer, param, curvature)
        return abs(param.item())

    assert distance_after(1500, 0.98 * limit) < 1e-2
    assert distance_after(1500, 1.02 * limit) > 1e2


def test_momentum_makes_a_constant_gradients_step_one_over_one_minus_momentum_times_as_long() -> None:
    for nesterov in (False, True):
        param = Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = optim_core.SGD([param], lr=0.1, momentum=0.9, nesterov=nesterov)
        for _ in range(300):
            before = param.item()
            param.grad = torch.ones_like(param)
            optimizer.step()
        assert before - param.item() == pytest.approx(0.1 / (1 - 0.9), rel=1e-9)


def rosenbrock_gradient(point: Tensor) -> Tensor:
    x, y = point
    return torch.stack([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


ROSENBROCK_START = torch.tensor([-1.2, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(("lr", "mu"), [(1e-3, 0.3), (5e-4, 0.7), (2e-4, 0.9), (1e-3, 0.9), (2e-5, 0.99)])
def test_nesterov_is_the_textbooks_look_ahead_under_a_change_of_variables(lr: float, mu: float) -> None:
    """Sutskever et al. 2013, eq. 3-4: v' = mu v - lr grad(theta + mu v), theta' = theta + v'.

    torch's parameter (and ours) is the look-ahead point theta + mu v, its buffer -v / lr.
    """
    theta, velocity = ROSENBROCK_START.clone(), torch.zeros(2, dtype=torch.float64)
    param = Parameter(theta.clone())
    optimizer = optim_core.SGD([param], lr=lr, momentum=mu, nesterov=True)
    for _ in range(300):
        velocity = mu * velocity - lr * rosenbrock_gradient(theta + mu * velocity)
        theta = theta + velocity
        param.grad = rosenbrock_gradient(param.detach())
        optimizer.step()
        buffer = optimizer.state[param]["momentum_buffer"]
        torch.testing.assert_close(param.detach(), theta + mu * velocity, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(param.detach() + mu * lr * buffer, theta, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(-lr * buffer, velocity, rtol=1e-11, atol=1e-12)


RATES = [5e-4 * 0.98**step for step in range(200)]


def torchs_point(mu: float, *, nesterov: bool, rescale: bool) -> Tensor:
    """Where our form ends under RATES; with `rescale`, the buffer is multiplied by old / new rate before a step."""
    param, old_lr = Parameter(ROSENBROCK_START.clone()), RATES[0]
    optimizer = optim_core.SGD([param], momentum=mu, nesterov=nesterov)
    for lr in RATES:
        if rescale and param in optimizer.state:
            optimizer.state[param]["momentum_buffer"] *= old_lr / lr
        optimizer.param_groups[0]["lr"] = old_lr = lr
        param.grad = rosenbrock_gradient(param.detach())
        optimizer.step()
    return param.detach()


def textbooks_point(mu: float, *, nesterov: bool, rescale: bool) -> Tensor:
    """Where Sutskever et al.'s eq. 1-2, or 3-4, take their next gradient after RATES.

    With `rescale`, a changed rate multiplies the velocity by new / old and leaves that point where it is.
    """
    ahead = mu if nesterov else 0.0
    theta, velocity, old_lr = ROSENBROCK_START.clone(), torch.zeros(2, dtype=torch.float64), RATES[0]
    for lr in RATES:
        point = theta + ahead * velocity
        if rescale:
            velocity = velocity * lr / old_lr
            theta = point - ahead * velocity
        velocity = mu * velocity - lr * rosenbrock_gradient(point)
        theta, old_lr = theta + velocity, lr
    return theta + ahead * velocity


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("mu", [0.5, 0.9])
def test_a_changed_rate_scales_our_whole_memory_but_only_the_textbooks_new_gradients(
    *, nesterov: bool, mu: float
) -> None:
    plain, rescaled = ({"nesterov": nesterov, "rescale": rescale} for rescale in (False, True))
    torch.testing.assert_close(torchs_point(mu, **plain), textbooks_point(mu, **rescaled), rtol=1e-11, atol=0)
    torch.testing.assert_close(torchs_point(mu, **rescaled), textbooks_point(mu, **plain), rtol=1e-11, atol=0)
    assert (torchs_point(mu, **plain) - textbooks_point(mu, **plain)).norm() > 1e-3


@pytest.mark.parametrize(("lr", "mu", "nesterov"), [(1e-3, 0.9, False), (1e-3, 0.9, True), (2e-4, 0.98, False)])
def test_momentum_finds_the_end_of_rosenbrocks_valley(*, lr: float, mu: float, nesterov: bool) -> None:
    param = Parameter(ROSENBROCK_START.clone())
    optimizer = optim_core.SGD([param], lr=lr, momentum=mu, nesterov=nesterov)
    for _ in range(6000):
        param.grad = rosenbrock_gradient(param.detach())
        optimizer.step()
    torch.testing.assert_close(param.detach(), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-4)
