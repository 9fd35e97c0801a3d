"""The optimizers take the GPU kernel for what it takes: by Triton's interpreter here, on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core
from optim_core import gpu
from tests.optim_core.builds import PYTEST, ROOT

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no GPU")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"lr": 0.01, "amsgrad": True},
    "AdamW": {"lr": 0.01},
}
KINDS = pytest.mark.parametrize("kind", OPTIONS)


def values(seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng).to(DEVICE) for shape in ((7, 5), (1500,), ())]


def pair(kind: str) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """One by the GPU kernel, one by the plain rule."""
    made = [getattr(optim_core, kind)(map(Parameter, values(0)), **OPTIONS[kind]) for _ in range(2)]
    made[1].update_on_gpu = lambda _table, rows, scale: made[1].update_group(
        rows[0].group, [(row.param, row.grad * scale) for row in rows]
    )
    for optimizer in made:
        optimizer._table = None
    return made[0], made[1]


def params(optimizer: torch.optim.Optimizer) -> list[Parameter]:
    return [param for group in optimizer.param_groups for param in group["params"]]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_in_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "TRAIND_KERNEL": "torch"}
    command = [sys.executable, "-m", "pytest", *PYTEST, "-k", "not in_the_interpreter", __file__]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f" {len(OPTIONS) * 2 + 2} passed" in done.stdout.replace("\n", " ")


@here
@KINDS
def test_a_training_with_clipping_is_the_plain_rules(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    for name in ("sgd", "adam"):
        kernel = getattr(gpu.GpuTable, name)
        monkeypatch.setattr(
            gpu.GpuTable, name, lambda self, rows, k=kernel, **kw: (calls.append(len(rows)), k(self, rows, **kw))[1]
        )
    ours, plain = pair(kind)
    for seed in range(1, 5):
        for optimizer in (ours, plain):
            for param, grad in zip(params(optimizer), values(seed), strict=True):
                param.grad = grad
            norm = optimizer.clip_grad_norm(1.0)
            torch.testing.assert_close(norm, torch.cat([v.reshape(-1) for v in values(seed)]).norm())
            optimizer.step()
    torch.testing.assert_close(params(ours), params(plain), rtol=1e-5, atol=1e-6)
    assert calls == [3] * 4
    if kind != "SGD":
        assert [ours.state[param]["step"].item() for param in params(ours)] == [4, 4, 4]


@here
@KINDS
def test_what_it_does_not_take_goes_by_the_plain_rule_in_the_same_step(kind: str) -> None:
    dense, strided = Parameter(torch.ones(4, device=DEVICE)), Parameter(torch.ones(8, device=DEVICE)[::2])
    optimizer = getattr(optim_core, kind)([dense, strided], **OPTIONS[kind])
    optimizer._table = None
    for _ in range(3):
        dense.grad, strided.grad = torch.ones(4, device=DEVICE), torch.ones(4, device=DEVICE)
        optimizer.measure_next_step()
        optimizer.step()
    torch.testing.assert_close(dense.detach(), strided.detach())
    assert optimizer.measured is not None
    assert optimizer.measured[0].grad_norm == pytest.approx(8**0.5)


@here
def test_capturable_counts_on_the_device() -> None:
    param = Parameter(torch.ones(3, device=DEVICE))
    optimizer = optim_core.Adam((one for one in [param]), lr=0.1, capturable=True)
    optimizer._table = None
    for _ in range(2):
        param.grad = torch.ones(3, device=DEVICE)
        optimizer.step()
    assert optimizer.state[param]["step"].device == param.device
    assert optimizer.state[param]["step"].item() == 2
    torch.testing.assert_close(param.detach(), torch.full((3,), 0.8, device=DEVICE))


@here
def test_an_infinite_gradient_norm_is_an_error_where_it_is_asked_for() -> None:
    param = Parameter(torch.ones(3, device=DEVICE))
    optimizer = optim_core.SGD([param])
    param.grad = torch.full((3,), torch.inf, device=DEVICE)
    with pytest.raises(RuntimeError, match="norm is inf"):
        optimizer.clip_grad_norm(1.0, error_if_nonfinite=True)
