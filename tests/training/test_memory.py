"""The estimate of a trainer's memory beside the largest that real trainers held (VmHWM)."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog.memory import BASE_BYTES
from tests.training.scenario import trainer_job

LEAST, MOST = 0.85, 1.7
"""Of the estimate over the real peak: 0.89 to 1.56 was seen on this project's machine, in more cases than these."""


def mlp(*hidden: int, **options: Any) -> dict[str, Any]:
    return {"model": {"name": "mlp", "hidden": hidden, **options}}


def optimizer(name: str, **options: Any) -> dict[str, Any]:
    return {"optimizer": {"name": name, "lr": 1e-6, **options}}


def synthetic(n_samples: int, n_features: int, n_classes: int = 4) -> dict[str, Any]:
    sizes = {"n_samples": n_samples, "n_features": n_features, "n_classes": n_classes}
    return {"dataset": {"name": "synthetic_classification", **sizes}}


def training(batch_size: int | str = 32, **options: Any) -> dict[str, Any]:
    return {"training": {"steps": 4, "batch_size": batch_size, **options}}


CONV = {"type": "conv2d", "out_channels": 64, "kernel_size": 3, "padding": 1}
BODY = [CONV, {"type": "batch_norm2d"}, {"type": "relu"}]
CONV_NET = {
    "model": {
        "name": "sequential",
        "layers": [*BODY, *BODY, {"type": "flatten"}, {"type": "linear", "out_features": 10}],
    }
}
CASES: dict[str, dict[str, Any]] = {
    "small MLP": mlp(128) | optimizer("adam") | training(),
    "CNN": {"model": {"name": "cnn"}} | optimizer("adam") | training(),
    "CNN, full batch": {"model": {"name": "cnn"}} | optimizer("adam") | training("full"),
    "convolutions and batch norm": CONV_NET | optimizer("adam") | training("full"),
    "wide MLP, SGD": mlp(2048, 2048) | optimizer("sgd") | training(),
    "wide MLP, momentum": mlp(2048, 2048) | optimizer("sgd", momentum=0.9) | training(),
    "wide MLP, Adam": mlp(2048, 2048, 2048, 2048) | optimizer("adam") | training(),
    "wide MLP, AMSGrad, saved often": mlp(2048, 2048) | optimizer("adam", amsgrad=True) | training(checkpoint_every=2),
    "wide MLP, two threads": mlp(2048, 2048) | optimizer("adam") | training(threads=2),
    "deep MLP, large batch": mlp(*[512] * 8, activation="gelu", dropout=0.1) | optimizer("sgd") | training("full"),
    "much data": synthetic(200_000, 100) | mlp(16) | training(),
    "much data, full batch": synthetic(200_000, 100) | mlp(16) | training("full"),
    "large batch": synthetic(50_000, 200) | mlp(512) | optimizer("adam") | training(20_000),
    "wide data": synthetic(10_000, 4_096) | mlp(16) | training(),
    "many classes": synthetic(20_000, 64, 1_000) | mlp(16) | training(4_000),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """{case: (estimate, real peak)}, all of them trained by children of one process."""
    make = partial(trainer_job, tmp_path_factory.mktemp("scratch"))
    jobs = {name: make(**parts) for name, parts in CASES.items()}
    lines = "\n".join(job.model_dump_json() for job in jobs.values())
    command = [sys.executable, "-m", "tests.training.peaks"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True, cwd=root)
    found = {}
    for (name, job), line in zip(jobs.items(), done.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        assert '"type":"finished"' in answer["end"], (name, answer)
        assert job.resolved.memory_bytes is not None
        found[name] = job.resolved.memory_bytes, answer["peak_bytes"]
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_near_the_real_peak(trained: dict[str, tuple[int, int]], case: str) -> None:
    estimate, peak = trained[case]
    assert LEAST * peak < estimate < MOST * peak, f"{estimate / 1e6:,.0f} MB estimated, {peak / 1e6:,.0f} MB used"


@pytest.mark.parametrize(
    "case", ["wide MLP, Adam", "much data", "deep MLP, large batch", "convolutions and batch norm"]
)
def test_what_takes_much_is_estimated_and_not_the_base_alone(trained: dict[str, tuple[int, int]], case: str) -> None:
    estimate, peak = trained[case]
    assert 0.7 < (estimate - BASE_BYTES) / (peak - BASE_BYTES) < 2.0
