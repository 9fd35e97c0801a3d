"""The plots of docs/optimizers.md, drawn from runs of optim_core's own optimizers.

    python examples/optimizers.py [--out docs/images] [--quick]

Writes six SVG files into the folder and says on stderr how far it is; under a minute on two cores. Every run is
seeded, so the same machine, versions and kernel write the same bytes. Needs matplotlib: `pip install -e '.[dev]'`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optimizer_runs import (
    GUESSING,
    PROBLEMS,
    Make,
    Problem,
    Walk,
    best_walk,
    constant_gradient_steps,
    digits_losses,
    final_scores,
    online_problem,
)
from torch import Tensor

import optim_core

IMAGES = Path(__file__).parents[1] / "docs" / "images"
STARTED = time.monotonic()
WIDTH = 8.6  # inches: a GitHub page shows it at its own size
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "traind",  # else the ids in the files, and so their bytes, differ at each run
    "path.simplify_threshold": 0.3,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Method:
    """An optimizer, default options but for lr and momentum, and how it is drawn."""

    make: Make
    colour: str  # Okabe & Ito's, which colour-blind readers can tell apart; the lines differ in their dashes, too
    line: str
    marker: str


METHODS = {
    "SGD": Method(optim_core.SGD, "#000000", ":", "o"),
    "Momentum": Method(partial(optim_core.SGD, momentum=0.9), "#E69F00", "--", "s"),
    "Nesterov": Method(partial(optim_core.SGD, momentum=0.9, nesterov=True), "#0072B2", "-.", "D"),
    "Adam": Method(optim_core.Adam, "#D55E00", "-", "^"),
}


def draw_trajectories(problem: Problem, walks: dict[str, Walk]) -> Figure:
    """One panel per method: the path over contours of the loss, a factor of ten apart."""
    left, right, bottom, top = problem.window
    x, y = torch.meshgrid(torch.linspace(left, right, 80), torch.linspace(bottom, top, 80), indexing="xy")
    height = problem.function(torch.stack([x, y], dim=-1)).log10()
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    for axes, (label, run) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, walks.items(), strict=True):
        steps = len(run.losses) - 1
        axes.contour(x, y, height, levels=[-1, 0, 1, 2, 3], colors="#bbbbbb", linewidths=0.8, linestyles="-")
        every = max(1, steps // 100)
        axes.plot(*run.points.T, color=METHODS[label].colour, linewidth=1.1, marker=".", markersize=4, markevery=every)
        axes.plot(*problem.start, marker="o", color="white", markeredgecolor="black", markersize=8)
        axes.plot(*problem.minimum, marker="*", color="white", markeredgecolor="black", markersize=13)
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.locator_params(nbins=5)
        axes.set_title(f"{label}, lr {run.lr:.2g}: loss {run.losses[-1]:.2g} after {steps} steps")
        axes.grid(visible=False)
    figure.supxlabel("x", fontsize="medium")
    figure.supylabel("y", fontsize="medium", rotation=0)
    return figure


def draw_losses(walks: dict[str, dict[str, Walk]]) -> Figure:
    """Loss over steps, a panel per problem."""
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    for axes, (name, runs) in zip(figure.subplots(1, 2), walks.items(), strict=True):
        for label, run in runs.items():
            method = METHODS[label]
            axes.semilogy(run.losses, method.line, color=method.colour, label=f"{label}, lr {run.lr:.2g}")
        axes.set(title=PROBLEMS[name].title, xlabel="step", ylabel="loss")
        axes.legend(loc="lower left")
    return figure


def draw_learning_rates(*, quick: bool) -> Figure:
    """Validation loss and accuracy against lr: the median of the seeds in the band of all; above, how many failed."""
    seeds, epochs = (3, 1) if quick else (9, 10)
    rates = [10 ** (k / 2) for k in (range(-6, 1, 3) if quick else range(-8, 3))]
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for row, (label, method) in enumerate(METHODS.items()):
        report(f"learning rates of {label}")
        scores = [final_scores(method.make, lr, seeds=seeds, epochs=epochs) for lr in rates]
        losses, accuracies = (torch.stack(part) for part in zip(*scores, strict=True))
        draw_band(upper, rates, losses.where(losses < GUESSING, math.nan), method, label)
        draw_band(lower, rates, accuracies, method, label)
        for lr, failed in zip(rates, (losses >= GUESSING).sum(1).tolist(), strict=True):
            if failed:
                place = (lr, GUESSING * 1.25 ** (row + 0.7))
                upper.text(*place, f"{failed}/{seeds}", color=method.colour, ha="center", va="center", fontsize=8)
    upper.axhline(GUESSING, color="#777777", linewidth=1)
    note = "no better than guessing, or not finite:\nhow many of the runs with that rate"
    upper.text(0.3, GUESSING * 1.25**2.25, note, color="#555555", fontsize=9, ha="right", va="center")
    upper.set(yscale="log", ylim=(0.06, GUESSING * 1.25**4.5), ylabel="validation loss (nats)")
    lower.set(xscale="log", ylim=(0, 100), xlabel="learning rate", ylabel="validation accuracy (%)")
    lower.legend(loc="center", bbox_to_anchor=(0.45, 0.35))
    return figure


def draw_band(axes: Axes, x: list[float], values: Tensor, method: Method, label: str) -> None:
    """Sorted values [x, seeds]: the median as a line, within a band from the least to the greatest."""
    axes.fill_between(x, values[:, 0], values[:, -1], color=method.colour, alpha=0.15, linewidth=0)
    median = values[:, values.shape[1] // 2]
    axes.plot(x, median, method.line, color=method.colour, marker=method.marker, markersize=4, label=label)


def draw_amsgrad(*, quick: bool) -> Figure:
    """Where Adam and AMSGrad go in the online problem, and what it costs them; a point per period."""
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, amsgrad, colour, line in (("Adam", False, "#D55E00", "-"), ("AMSGrad", True, "#009E73", "--")):
        report(f"online problem with {label}")
        path, regret = online_problem(amsgrad=amsgrad, rounds=500 if quick else 20_000)
        rounds = torch.arange(1, len(path) + 1)[100::101]
        left.plot(rounds, path[100::101], line, color=colour, label=label)
        right.plot(rounds, regret[100::101], line, color=colour, label=label)
    left.axhline(-1, color="#777777", linewidth=1)
    left.text(0, -1.05, "the best point", color="#555555", fontsize=9, va="top")
    left.set(xlabel="round", ylabel="x", ylim=(-1.25, 1.1))
    left.legend(loc="center right")
    right.axhline(20 / 101, color="#777777", linewidth=1)
    right.text(100, 0.19, "at x = 1 for ever", color="#555555", fontsize=9, va="top")
    right.set(xscale="log", yscale="log", xlabel="round", ylabel="average regret", ylim=(0.14, 12))
    return figure


def draw_bias_correction(*, quick: bool) -> Figure:
    """The size of the first steps with and without bias correction, and what that does to training."""
    report("bias correction")
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = range(1, 101 if quick else 3001)
    for beta2, colour in ((0.9999, "#0072B2"), (0.999, "#D55E00"), (0.99, "#009E73")):
        corrected, uncorrected = constant_gradient_steps(beta2, len(steps))
        left.plot(steps, uncorrected, "--", color=colour)
        left.text(12, 1.1 * max(uncorrected), f"without, β₂ = {beta2}", color=colour, ha="center", va="bottom")
    left.plot(steps, corrected, "-", color="black")
    left.text(12, 0.94, "with, whatever β₂", ha="center", va="top")
    left.set(xscale="log", yscale="log", ylim=(0.7, 35), xlabel="step", title="constant gradient")
    left.set_ylabel("size of the step / learning rate")
    for lr, colour in ((0.03, "#CC79A7"), (0.001, "#000000")):
        for correct, line in ((True, "-"), (False, "--")):
            losses = digits_losses(lr, correct=correct, quick=quick)
            label = f"{'with' if correct else 'without'}, lr = {lr}"
            right.plot(range(1, len(losses) + 1), losses, line, color=colour, label=label)
    right.axhline(GUESSING, color="#777777", linewidth=1)
    right.set(xscale="log", yscale="log", xlabel="step", ylabel="loss of the batch (nats)", title="MLP on digits")
    right.legend(loc="lower left")
    return figure


def report(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.1f} s  {text}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the files (default: docs/images)")
    parser.add_argument("--quick", action="store_true", help="seconds instead of a minute, and plots that show little")
    arguments = parser.parse_args()
    quick = arguments.quick
    matplotlib.rcParams.update(STYLE)
    torch.set_num_threads(1)  # small operations; and sums in one order on every machine
    walks = {}
    for name, problem in PROBLEMS.items():
        report(f"trajectories on {problem.title}")
        walks[name] = {label: best_walk(problem, method.make, quick=quick) for label, method in METHODS.items()}
    figures = {f"trajectories-{name}": draw_trajectories(PROBLEMS[name], runs) for name, runs in walks.items()}
    figures["losses"] = draw_losses(walks)
    figures["learning-rates"] = draw_learning_rates(quick=quick)
    figures["amsgrad"] = draw_amsgrad(quick=quick)
    figures["bias-correction"] = draw_bias_correction(quick=quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(arguments.out / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
