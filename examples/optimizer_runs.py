"""The runs behind the plots of docs/optimizers.md: optim_core's optimizers on two problems of the plane, on the shipped
digits, and on the online problem that Adam loses. `optimizers.py` beside this file draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

import optim_core
from worker.training.datasets.digits import load_digits

Make = Callable[..., Optimizer]
"""An optimizer's class with its options, to be called with parameters and lr."""

GUESSING = math.log(10)
"""The loss of ten equal probabilities, in nats."""


@dataclass(frozen=True)
class Problem:
    """A function of the plane, [..., 2] to [...], with its minimum; where to start, how long, and what to draw."""

    title: str
    function: Callable[[Tensor], Tensor]
    minimum: tuple[float, float]
    start: tuple[float, float]
    steps: int
    window: tuple[float, float, float, float]  # left, right, bottom, top


def quadratic(point: Tensor) -> Tensor:
    """Curvature 1 along a valley that is turned by 30 degrees, and 100 across it."""
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    along, across = cos * point[..., 0] + sin * point[..., 1], cos * point[..., 1] - sin * point[..., 0]
    return (along**2 + 100 * across**2) / 2


def rosenbrock(point: Tensor) -> Tensor:
    x, y = point[..., 0], point[..., 1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


PROBLEMS = {
    "quadratic": Problem(
        "quadratic, condition number 100", quadratic, (0, 0), (-2.0, -0.4), 100, (-2.4, 1.2, -1.7, 0.7)
    ),
    "rosenbrock": Problem("Rosenbrock", rosenbrock, (1, 1), (-1.2, 1.0), 300, (-1.6, 1.6, -0.5, 1.7)),
}


@dataclass(frozen=True)
class Walk:
    """A run on a problem: float64 points [steps + 1, 2] and their losses [steps + 1]."""

    lr: float
    points: Tensor
    losses: Tensor


def walk(problem: Problem, make: Make, lr: float, steps: int) -> Walk:
    point = Parameter(torch.tensor(problem.start, dtype=torch.float64))
    optimizer = make([point], lr=lr)
    points = [point.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        problem.function(point).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        points.append(point.detach().clone())
    stacked = torch.stack(points)
    return Walk(lr, stacked, problem.function(stacked))


def best_walk(problem: Problem, make: Make, *, quick: bool) -> Walk:
    """The run with the best of eight rates per decade.

    Judged by the loss below which a run stays from a step on, averaged over the steps on a log axis: a spike counts
    against all the steps before it.
    """
    rates = [10 ** (k / 8) for k in (range(-24, 1, 8) if quick else range(-24, 1))]
    runs = [walk(problem, make, lr, 20 if quick else problem.steps) for lr in rates]
    return min(runs, key=lambda run: run.losses.nan_to_num(math.inf).flip(0).cummax(0).values.log().mean().item())


@dataclass(frozen=True)
class Data:
    """Float32 images [n, 64] and their int64 classes [n]."""

    inputs: Tensor
    classes: Tensor


@cache
def digits() -> tuple[Data, Data]:
    """The training and the validation data."""
    arrays = load_digits()
    return (
        Data(torch.from_numpy(arrays.train_inputs).flatten(1), torch.from_numpy(arrays.train_targets)),
        Data(torch.from_numpy(arrays.validation_inputs).flatten(1), torch.from_numpy(arrays.validation_targets)),
    )


class Mlps:
    """As many MLPs 64-128-10 as there are seeds, side by side: every parameter is [seeds, rows, columns].

    SGD and Adam are elementwise, so one optimizer steps them all as if each had its own.
    """

    def __init__(self, seeds: int) -> None:
        self.seeds, self.generator = seeds, torch.Generator().manual_seed(0)
        shapes = [(64, 128, 64), (1, 128, 64), (128, 10, 128), (1, 10, 128)]  # rows, columns, inputs of the layer
        self.params = [Parameter(self.uniform(rows, columns) / math.sqrt(n)) for rows, columns, n in shapes]

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.seeds, *shape, generator=self.generator) * 2 - 1

    def __call__(self, inputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Of inputs [seeds, batch, 64] and classes [seeds, batch]: mean loss [seeds] and accuracy [seeds]."""
        w1, b1, w2, b2 = self.params
        logits = torch.baddbmm(b2, torch.baddbmm(b1, inputs, w1).relu(), w2)
        loss = cross_entropy(logits.transpose(1, 2), classes, reduction="none").mean(1)
        return loss, (logits.argmax(2) == classes).float().mean(1)

    def batches(self, data: Data, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Full batches of 32; each seed has its own order, and what is left of an epoch is left out."""
        for _ in range(epochs):
            order = self.uniform(len(data.classes)).argsort(dim=1)
            yield from (
                (data.inputs[rows], data.classes[rows]) for rows in torch.split(order, 32, dim=1) if rows.shape[1] == 32
            )

    def train(self, optimizer: Optimizer, data: Data, epochs: int, lr: Callable[[int], float]) -> Tensor:
        """The loss of each step t = 1, 2, ..., taken with the rate lr(t): [steps, seeds]."""
        losses = []
        for t, batch in enumerate(self.batches(data, epochs), start=1):
            optimizer.param_groups[0]["lr"] = lr(t)
            optimizer.zero_grad()
            loss, _ = self(*batch)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)


def final_scores(make: Make, lr: float, *, seeds: int, epochs: int) -> tuple[Tensor, Tensor]:
    """Validation loss and accuracy in per cent at the end, each sorted [seeds]; a loss that is not finite is inf."""
    train, validation = digits()
    models = Mlps(seeds)
    models.train(make(models.params, lr=lr), train, epochs, lambda _: lr)
    with torch.no_grad():
        loss, accuracy = models(validation.inputs.expand(seeds, -1, -1), validation.classes.expand(seeds, -1))
    return loss.nan_to_num(math.inf).sort().values, 100 * accuracy.sort().values


def digits_losses(lr: float, *, correct: bool, quick: bool) -> Tensor:
    """Median loss of nine seeds in each step of three epochs with Adam.

    Not to correct is to step with lr (1 - beta1^t) / sqrt(1 - beta2^t), for a gradient well above eps.
    """
    models = Mlps(9)
    optimizer = optim_core.Adam(models.params)

    def rate(t: int) -> float:
        return lr if correct else lr * (1 - 0.9**t) / math.sqrt(1 - 0.999**t)

    return models.train(optimizer, digits()[0], 1 if quick else 3, rate).median(1).values


def online_problem(*, amsgrad: bool, rounds: int) -> tuple[Tensor, Tensor]:
    """x and the average regret, [rounds], in the online problem of Reddi et al. 2018, section 5.

    The loss of a round is 1010 x in the first of every 101, and else -10 x; x stays in [-1, 1], and -1 is best.
    """
    x = Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optim_core.Adam([x], betas=(0.9, 0.99), amsgrad=amsgrad)
    slopes = torch.full((rounds,), -10.0, dtype=torch.float64)
    slopes[::101] = 1010.0
    path = torch.empty_like(slopes)
    for t, slope in enumerate(slopes, start=1):
        path[t - 1] = x.item()
        x.grad = slope.reshape(1)
        optimizer.param_groups[0]["lr"] = 0.5 / math.sqrt(t)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1, 1)
    return path, (slopes * (path + 1)).cumsum(0) / torch.arange(1, rounds + 1)


def constant_gradient_steps(beta2: float, steps: int) -> tuple[list[float], list[float]]:
    """Adam's steps / lr under a constant gradient, and from the same state what they were without bias correction."""
    param, positions, uncorrected = Parameter(torch.zeros(1, dtype=torch.float64)), [0.0], []
    optimizer = optim_core.Adam([param], lr=1.0, betas=(0.9, beta2))
    param.grad = torch.ones_like(param)
    for _ in range(steps):
        optimizer.step()
        positions.append(param.item())
        state = optimizer.state[param]
        uncorrected.append((state["exp_avg"] / state["exp_avg_sq"].sqrt()).item())
    return [before - after for before, after in pairwise(positions)], uncorrected
