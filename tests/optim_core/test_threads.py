"""Threads: no bit and no norm depends on their number, which is torch's; several optimizers and one optimizer in
several; and no gradient outlives its step.
"""

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.optim_core.pairs import Bits, assert_equal, make, needs_kernel, threads, written

KINDS = pytest.mark.parametrize(
    ("kind", "options"),
    [("SGD", {"momentum": 0.9, "nesterov": True}), ("AdamW", {"amsgrad": True})],
    ids=["SGD", "Adam"],
)
SIZES = (1, 100_003, 0, 5, 300_001, 4096, 4097)


def normal(size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def trained(who: str, kind: str, options: dict[str, Any], *, steps: int = 4) -> tuple[Bits, list[Any]]:
    """The bits of a training with clip and telemetry, and their figures."""
    params = [Parameter(normal(size, size)) for size in SIZES]
    groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.03}]
    optimizer = make(who, kind, groups, lr=0.01, **options)
    figures: list[Any] = []
    for step in range(steps):
        for index, param in enumerate(params):
            param.grad = None if (step + index) % 5 == 4 else normal(param.numel(), 31 * step + index)
        figures.append(float(optimizer.clip_grad_norm(100.0)))
        optimizer.measure_next_step()
        optimizer.step()
        figures.append(optimizer.measured)
    return written(optimizer, params), figures


@KINDS
def test_neither_bits_nor_figures_depend_on_the_number_of_threads(kind: str, options: dict[str, Any]) -> None:
    results = []
    for count in (1, 2, 3, 7):
        with threads(count):
            results.append(trained("native", kind, options))
    for bits, figures in results[1:]:
        assert_equal(bits, results[0][0])
        assert figures == results[0][1]


WORKERS = """
import os, sys, torch, optim_core
count = int(sys.argv[1])
torch.set_num_threads(count)
def tasks():
    return set(os.listdir("/proc/self/task"))
def zeros():  # made by one thread
    return torch.frombuffer(bytearray(4_000_000), dtype=torch.float32)
param = torch.nn.Parameter(zeros())
optimizer = optim_core.SGD([param], lr=0.1)
param.grad = zeros()
before = tasks()
optimizer.step()
print(len(tasks() - before))
for _ in range(3):
    optimizer.clip_grad_norm(1.0)
    optimizer.step()
    torch.ones(1_000_000).exp().sum()
print(len(tasks() - before))
assert torch.get_num_threads() == count
"""


@needs_kernel
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads in /proc")
@pytest.mark.parametrize("count", [1, 3])
def test_the_kernel_runs_in_torchs_threads_and_in_no_more(count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKERS, str(count)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(count - 1)] * 2


@KINDS
def test_two_optimizers_in_two_threads_train_as_each_alone(kind: str, options: dict[str, Any]) -> None:
    expected = trained("native", kind, options)[0]
    results: list[Bits] = []
    workers = [threading.Thread(target=lambda: results.append(trained("native", kind, options)[0])) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 3
    for result in results:
        assert_equal(result, expected)


ONE_IN_THREE = """
import sys, threading, torch, optim_core
sys.setswitchinterval(1e-6)
params = [torch.nn.Parameter(torch.ones(n)) for n in [200_000] * 3 + [10] * 100]
optimizer = optim_core.Adam(params)
errors = []
def train():
    for _ in range(200):
        for param in params[::7]:
            param.grad = torch.ones_like(param)
        try:
            optimizer.step()
            optimizer.clip_grad_norm(1.0)
        except RuntimeError as error:
            errors.append(str(error))
train()
assert not errors
workers = [threading.Thread(target=train) for _ in range(3)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
assert all("one at a time" in error for error in errors), errors
print(len(errors))
"""


@needs_kernel
def test_one_optimizer_in_several_threads_is_an_error_and_no_crash() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_IN_THREE], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 0


def sparse(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> None:
    params[1].grad = torch.ones(100).to_sparse()


def shrunk(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> None:
    assert params[1].grad is not None
    params[1].grad.data = torch.ones(2)


def lost(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> None:
    optimizer.state[params[1]].pop("exp_avg", None)


def bad_option(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> None:
    optimizer.param_groups[0]["lr"] = "fast"


def nothing(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> None:
    pass


@KINDS
@pytest.mark.parametrize("spoil", [nothing, sparse, shrunk, lost, bad_option])
@pytest.mark.parametrize("clip", [False, True])
def test_no_gradient_is_kept_after_a_step_or_its_error(
    *, kind: str, options: dict[str, Any], spoil: Callable[[Any, Any], None], clip: bool
) -> None:
    params = [Parameter(torch.ones(100)) for _ in range(3)]
    optimizer = make("native", kind, params, **options)
    for _ in range(2):
        for param in params:
            param.grad = torch.ones(100)
        optimizer.step()
        optimizer.zero_grad()
    for param in params:
        param.grad = torch.ones(100)
    references = [weakref.ref(params[index].grad) for index in (0, 2)]
    spoil(optimizer, params)
    if clip:
        optimizer.clip_grad_norm(1.0)
    failed = False
    try:
        optimizer.step()
    except (RuntimeError, KeyError, TypeError):
        failed = True
    assert failed == (spoil in {sparse, shrunk, bad_option} or (spoil is lost and kind != "SGD")) or kind == "SGD"
    optimizer.zero_grad()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_an_optimizer_and_its_parameters_are_freed_together() -> None:
    params = [Parameter(torch.ones(100)) for _ in range(3)]
    optimizer = make("native", "Adam", params)
    for param in params:
        param.grad = torch.ones(100)
    optimizer.step()
    references = [weakref.ref(param) for param in params] + [weakref.ref(optimizer)]
    optimizer.again = optimizer  # a cycle through the optimizer
    del params, param, optimizer
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
