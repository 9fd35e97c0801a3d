"""The goals of `bench.optim` and what was seen of them."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

Figures = dict[str, Any]
Cases = dict[str, float]

LARGE = ("resnet18", "gpt2", "tensor50m")


class Goal(NamedTuple):
    """One row: `seen` is the worst of the cases, or their median; the case that is the worst stands beside it."""

    name: str
    bound: float
    seen: float
    where: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.seen <= self.bound if self.at_most else self.seen >= self.bound

    def row(self) -> str:
        wanted = f"{'<=' if self.at_most else '>='} {self.bound:g}"
        return f"{self.name:56} {wanted:>8} {self.seen:8.2f}  {'met' if self.met else 'MISSED':6}  {self.where}"


def goals(figures: Figures) -> list[Goal]:
    """Those that the figures can judge."""
    every = [*native_goals(figures), *cuda_goals(figures), *plain_goals(figures.get("plain", {}))]
    return [goal for goal in every if goal is not None]


def native_goals(figures: Figures) -> Iterator[Goal | None]:
    """On a CPU, against torch's fused kernels."""
    yield worst("mlp, Adam, step against fused", 5.0, cases(figures, "fused", "mlp/adam/", "12"))
    yield worst("mlp, SGD, step against fused", 4.0, cases(figures, "fused", "mlp/sgd/", "12"))
    yield worst("lenet, step against fused, 1 thread", 1.6, cases(figures, "fused", "lenet/", "1"))
    yield worst("lenet, step against fused, 2 threads", 2.8, cases(figures, "fused", "lenet/", "2"))
    large = cases(figures, "fused", LARGE, "12")
    yield middle("larger sets, step against fused", 1.05, large)
    yield worst("larger sets, step against fused", 0.95, large)
    yield worst("mlp, zero_grad + backward + step against fused", 1.25, cases(figures, "fused", "loop/mlp/", "12"))
    yield worst("every zero_grad + backward + step against fused", 0.98, cases(figures, "fused", "loop/", "12"))
    clips = {key: value for key, value in figures.items() if key.startswith("clip/") and not key.endswith("cuda")}
    yield worst("clip_grad_norm against clip_grad_norm_", 2.0, clips)
    yield worst("mlp, microseconds a step", 10.0, cases(figures, "us", "mlp/", "12"), at_most=True)


def cuda_goals(figures: Figures) -> Iterator[Goal | None]:
    """On a GPU, against torch's fused kernels and the measured copy bandwidth."""
    steps = ("mlp", "lenet", *LARGE)
    yield worst("share of the copy bandwidth", 0.9, cases(figures, "stream_share", LARGE, "cuda"))
    yield worst("every step against fused", 1.0, cases(figures, "fused", steps, "cuda"))
    yield worst("mlp and lenet, step against fused", 3.0, cases(figures, "fused", ("mlp/", "lenet/"), "cuda"))


def plain_goals(plain: Figures) -> Iterator[Goal | None]:
    """Without the native kernel, against torch's default loop."""
    seen = cases(plain, "default", "", "12")
    yield worst("plain path, step against torch's default", 0.95, seen)
    yield middle("plain path, step against torch's default", 1.0, seen)


def cases(figures: Figures, what: str, prefix: str | tuple[str, ...], threads: str) -> Cases:
    """One kind of figure of the keys that start with `prefix` and end in a thread count."""
    ends = (threads,) if threads == "cuda" else tuple(threads)
    chosen = (key for key in figures if key.startswith(prefix) and key.rsplit("/", 1)[-1] in ends)
    return {key: figures[key][what] for key in chosen if isinstance(figures[key], dict) and what in figures[key]}


def worst(name: str, bound: float, seen: Cases, *, at_most: bool = False) -> Goal | None:
    if not seen:
        return None
    where = (max if at_most else min)(seen, key=seen.__getitem__)
    return Goal(f"{name}: worst", bound, seen[where], where, at_most)


def middle(name: str, bound: float, seen: Cases) -> Goal | None:
    return Goal(f"{name}: median", bound, median(seen.values()), f"{len(seen)} cases") if seen else None
