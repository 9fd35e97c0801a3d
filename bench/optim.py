"""Our optimizers beside torch's: `python -m bench.optim [--json FILE] [--quick] [--rounds N] [--device cpu|cuda]`.

Steps `optim_core`'s optimizers beside torch's default loop, foreach and fused, over five sets of parameters and six
optimizers (`bench.optim_sets`) at one and two threads, through the public `step()` with gradients that stay. Then the
loop `zero_grad(); backward(); step()`, forward included, with the models themselves, and clipping. Contenders take
turns (`bench.optim_turns`); a ratio is their median / ours: above 1 ours is faster. The share is of the bandwidth of
streams that run in the same rounds; in a set that fits the caches it may exceed 1. The plain path is this benchmark
again in a child process with TRAIND_KERNEL=torch. gpt2 and tensor50m loop with SGD and Adam against fused only, for
time and memory.

Then the goals. The last line is one JSON object:

    "SET/OPTIMIZER/THREADS"       {"default": r, "foreach": r, "fused": r, "stream_share": s, "us": ours}
    "loop/SET/OPTIMIZER/THREADS"  {"default": r, "foreach": r, "fused": r, "us": ours}
    "clip/SET/THREADS"            clip_grad_norm_ / our clip_grad_norm
    "clip_step/SET/THREADS"       with Adam: clip_grad_norm_ and fused step / our clip_grad_norm and step
    "plain"                       the first kind again, by the plain path
    "conditions"                  what it ran on

`--quick` leaves out gpt2 and takes few and short rounds. resnet18 and tensor50m then step, and all sets loop, with SGD
and Adam only; loops are against fused only.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from operator import truediv
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

import optim_core
from bench.optim_goals import Figures, goals
from bench.optim_sets import GRADIENT, OPTIMIZERS, PEERS, SETS, Batch, build_ours, build_peer
from bench.optim_turns import Run, Streams, Turns
from optim_core import gpu

Seconds = dict[str, dict[str, float]]
"""Median seconds of a call, by threads and contender."""

MIDDLE, LARGE = 1_000_000, 20_000_000
"""Elements from which on `--quick` takes few optimizers; only two contenders are alive at once, and few loop."""
QUICK = ("sgd", "adam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="at most so many rounds of a case; 15, or 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="under a minute, without gpt2")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    began, load = time.perf_counter(), os.getloadavg()
    figures = Benchmark(arguments).run()
    if arguments.device == "cpu" and "plain" not in figures:
        figures["plain"] = plain_figures(arguments)
    figures["conditions"] |= {"load_average": [*load, *os.getloadavg()], "seconds": round(time.perf_counter() - began)}
    print(f"\n{'goal':56} {'':8} {'seen':>8}")
    for goal in goals(figures):
        print(goal.row())
    text = json.dumps(figures)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


def plain_figures(arguments: argparse.Namespace) -> Figures:
    """The steps by the plain path, from a child that has no kernel."""
    options = ["--quick"] * arguments.quick + ([f"--rounds={arguments.rounds}"] if arguments.rounds else [])
    command = [sys.executable, "-m", "bench.optim", *options]
    environment = os.environ | {"TRAIND_KERNEL": "torch"}
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    *table, text = child.stdout.rstrip().splitlines()
    print("\nthe plain path", *table[: table.index("")], sep="\n", flush=True)
    plain: Figures = json.loads(text)["plain"]
    return plain


class Benchmark:
    """One run on one device, by the kernel that this process has."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.quick, self.device = arguments.quick, arguments.device
        self.backend = gpu.backend() if self.device == "cuda" else optim_core.backend()
        self.kernel = not self.backend.startswith("torch")
        self.threads = ("cuda",) if self.device == "cuda" else ("1", "2")
        rounds, batch_seconds, seconds, min_rounds = (3, 0.004, 0.2, 1) if self.quick else (15, 0.02, 2.0, 3)
        self.turns = Turns(arguments.rounds or rounds, batch_seconds, seconds, min_rounds, self.device)
        self.streams = Streams(self.device)
        self.bandwidths: dict[str, list[float]] = {threads: [] for threads in self.threads}

    def run(self) -> Figures:
        """All cases; under "plain" where this process has no kernel."""
        torch.manual_seed(0)
        print(HEADER, flush=True)
        names = [name for name in SETS if not (self.quick and name == "gpt2")]
        steps: Figures = {}
        loops: Figures = {}
        for name in names:
            began = time.perf_counter()
            model = SETS[name].model().to(self.device)
            steps |= self.steps(name, model)
            if self.kernel:
                loops |= self.loops(name, model) | self.clips(name, model)
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        figures = steps | loops if self.kernel else {"plain": steps}
        return figures | {"conditions": self.conditions()}

    def steps(self, set_name: str, model: nn.Module) -> Figures:
        """Steps alone, with preset gradients that all contenders share."""
        grads = preset_gradients(model.parameters())
        n = sum(grad.numel() for grad in grads)
        figures: Figures = {}
        for name in QUICK if self.quick and n > MIDDLE else OPTIMIZERS:
            ours = with_state(build_ours(name, with_gradients(model, grads)))
            measured = [self.beside_ours(ours, name, model, grads, peers) for peers in at_once(n)]
            for threads in self.threads:
                groups = [seconds[threads] for seconds in measured]
                bandwidths = [self.streams.bytes_per_second(seconds) for seconds in groups]
                self.bandwidths[threads] += bandwidths
                moved = [OPTIMIZERS[name].bytes_per_parameter * n / seconds["ours"] for seconds in groups]
                figure = merged(groups)
                figure["stream_share"] = round(mean(map(truediv, moved, bandwidths)), 3)
                key = f"{set_name}/{name}/{threads}"
                figures[key] = figure
                print_row(key, figure, n)
        return figures

    def beside_ours(self, ours: Run, name: str, model: nn.Module, grads: list[Tensor], peers: Iterable[str]) -> Seconds:
        runs = {"ours": ours}
        for peer in peers:
            runs[peer] = with_state(build_peer(name, with_gradients(model, grads), peer))
        return {threads: self.turns.interleave(runs | self.streams.runs, threads) for threads in self.threads}

    def loops(self, set_name: str, model: nn.Module) -> Figures:
        """Training steps of the model on one batch."""
        inputs, targets = SETS[set_name].batch()
        batch = inputs.to(self.device), targets.to(self.device)
        few = self.quick or sum(param.numel() for param in model.parameters()) > LARGE
        figures: Figures = {}
        for name in QUICK if few else OPTIMIZERS:
            runs: dict[str, Run] = {}
            for contender in ("ours", "fused") if few else ("ours", *PEERS):
                own = copy.deepcopy(model)
                params = own.parameters()
                optimizer = build_ours(name, params) if contender == "ours" else build_peer(name, params, contender)
                runs[contender] = loop(own, optimizer, batch)
            for threads in self.threads:
                key = f"loop/{set_name}/{name}/{threads}"
                figures[key] = merged([self.turns.interleave(runs, threads)])
                print_row(key, figures[key])
        return figures

    def clips(self, set_name: str, model: nn.Module) -> Figures:
        """The clip alone, and with Adam's step; always one that shrinks the gradients."""
        grads = preset_gradients(model.parameters())
        max_norm = float(sum(grad.square().sum() for grad in grads)) ** 0.5 / 2
        ours = build_ours("adam", with_gradients(model, grads))
        params = with_gradients(model, preset_gradients(grads))  # its own gradients: clip_grad_norm_ writes them
        fused = build_peer("adam", params, "fused")
        clip: dict[str, Run] = {
            "ours": lambda: ours.clip_grad_norm(max_norm),
            "theirs": lambda: clip_grad_norm_(params, max_norm),
        }
        clip_step: dict[str, Run] = {
            "ours": lambda: (ours.clip_grad_norm(max_norm), ours.step()),
            "theirs": lambda: (clip_grad_norm_(params, max_norm), fused.step()),
        }
        figures: Figures = {}
        for what, runs in {"clip": clip, "clip_step": clip_step}.items():
            for threads in self.threads:
                seconds = self.turns.interleave(runs, threads)
                key = f"{what}/{set_name}/{threads}"
                figures[key] = round(seconds["theirs"] / seconds["ours"], 3)
                print(f"{key:26} {figures[key]:8.2f}  ours {seconds['ours'] * 1e6:.1f} us", flush=True)
        return figures

    def conditions(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "cpu": cpu_name(),
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": list(self.threads),
            "stream_gb_per_second": {n: round(median(values) / 1e9, 1) for n, values in self.bandwidths.items()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
        }


def at_once(n: int) -> list[tuple[str, ...]]:
    """torch's implementations in groups: those of a group and ours are in memory together."""
    return [(peer,) for peer in PEERS] if n > LARGE else [tuple(PEERS)]


def preset_gradients(like: Iterable[Tensor]) -> list[Tensor]:
    """Random ones for each tensor."""
    return [torch.empty_like(tensor.detach()).uniform_(-GRADIENT, GRADIENT) for tensor in like]


def with_gradients(model: nn.Module, grads: list[Tensor]) -> list[nn.Parameter]:
    """A copy of the parameters, with these gradients."""
    params = [nn.Parameter(param.detach().clone()) for param in model.parameters()]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    return params


def with_state(optimizer: torch.optim.Optimizer) -> Run:
    """Its step, after the first one, which makes the state."""
    optimizer.step()
    return optimizer.step


def loop(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Run:
    inputs, targets = batch
    loss_function = nn.CrossEntropyLoss()

    def run() -> None:
        optimizer.zero_grad()
        loss_function(model(inputs), targets).backward()
        optimizer.step()

    run()
    return run


def merged(groups: list[dict[str, float]]) -> Figures:
    """Ratios to ours of the same group, and the mean of ours over the groups."""
    figure: Figures = {}
    for seconds in groups:
        ratios = {peer: seconds[peer] / seconds["ours"] for peer in PEERS if peer in seconds}
        figure |= {peer: round(ratio, 3) for peer, ratio in ratios.items()}
    figure["us"] = round(mean(seconds["ours"] for seconds in groups) * 1e6, 2)
    return figure


HEADER = (
    f"{'case':26} {'default':>8} {'foreach':>8} {'fused':>8} {'us':>11} {'ns/param':>9} {'B/param':>8} {'share':>6}"
)


def print_row(key: str, figure: Figures, n: int | None = None) -> None:
    ratios = " ".join(f"{figure[peer]:8.2f}" if peer in figure else " " * 8 for peer in PEERS)
    row = f"{key:26} {ratios} {figure['us']:11.2f}"
    if n is not None:
        n_bytes = OPTIMIZERS[key.split("/")[1]].bytes_per_parameter
        row += f" {figure['us'] * 1e3 / n:9.4f} {n_bytes:8d} {figure['stream_share']:6.2f}"
    print(row, flush=True)


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
