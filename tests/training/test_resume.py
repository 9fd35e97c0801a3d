"""Exact resume: going on from a checkpoint gives the bits of never having stopped.

What test_exact_resume.py does not cut: other models and data, clipping, param groups, GPUs, requests to stop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.scenario import Trained, files, trainer_job
from worker.training.fingerprint import fingerprint, optimizer_backend
from worker.training.messages import Checkpoint, Control, Message, Ready, Stopped

CUT = 37
"""Of 60 steps; inside an epoch where it has several steps, and no multiple of what recurs every few steps."""

MLP = {"name": "mlp", "hidden": [16, 8], "dropout": 0.3}
CNN = {"name": "cnn", "channels": [4], "hidden": [8]}
BATCH_NORM = {
    "name": "sequential",
    "layers": [
        {"type": "conv2d", "out_channels": 3, "kernel_size": 3},
        {"type": "batch_norm2d"},
        {"type": "silu"},
        {"type": "avg_pool2d", "kernel_size": 2},
        {"type": "flatten"},
        {"type": "layer_norm"},
        {"type": "linear", "out_features": 10},
    ],
}
ADAM = {"name": "adam", "lr": 3e-3, "weight_decay": 0.01}
COSINE = {"name": "cosine", "warmup_steps": 50}
CASES: dict[str, dict[str, Any]] = {
    "mlp, dropout, adam, cosine": {"model": MLP, "optimizer": ADAM, "schedule": COSINE},
    "mlp, amsgrad, clip, groups, early stopping": {
        "model": MLP,
        "optimizer": ADAM | {"amsgrad": True, "param_groups": [{"params": "*.bias", "lr": 0.01, "weight_decay": 0.0}]},
        "schedule": {"name": "step", "step_size": 20},
        "training": {"grad_clip_norm": 0.5, "early_stopping": {"patience": 3, "min_delta": 0.3}},
    },
    "mlp, batch of one": {"model": MLP, "optimizer": ADAM, "schedule": COSINE, "training": {"batch_size": 1}},
    "mlp, full batch, nesterov": {
        "model": MLP,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
        "training": {"batch_size": "full"},
    },
    "cnn, momentum": {
        "model": CNN,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "schedule": {"name": "linear", "final_factor": 0.1},
    },
    "cnn, adam, batch of one": {"model": CNN, "optimizer": ADAM, "training": {"batch_size": 1}},
    "batch norm, no shuffle": {"model": BATCH_NORM, "optimizer": ADAM, "training": {"shuffle": False}},
    "regression": {
        "dataset": {"name": "synthetic_regression", "n_samples": 500},
        "model": {"name": "linear"},
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.5, "dampening": 0.2},
    },
}


BEYOND = ("mlp, amsgrad, clip, groups, early stopping", "batch norm, no shuffle", "regression")
"""The cases that test_exact_resume.py does not cover on a CPU."""
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = [
    pytest.param("cpu"),
    pytest.param("cuda", marks=NO_GPU),
]


def parts_of(case: str) -> dict[str, Any]:
    parts = CASES[case]
    training = {"steps": 60, "batch_size": 60, "log_every": 8, "eval_every": 11, "checkpoint_every": CUT, "seed": 5}
    training["telemetry_every"] = 5
    return parts | {"training": training | parts.get("training", {})}


@pytest.mark.parametrize(
    ("case", "device"),
    [*((case, "cpu") for case in BEYOND), *(pytest.param(case, "cuda", marks=NO_GPU) for case in CASES)],
)
def test_resumed_equals_uninterrupted_to_the_bit(case: str, device: str, tmp_path: Path) -> None:
    parts = parts_of(case) | {"resources": {"device": device}}
    whole = Trained(trainer_job(tmp_path / "whole", **parts))
    cut = files(whole.checkpoint(CUT), tmp_path / "uploaded")
    resumed = Trained(trainer_job(tmp_path / "resumed", cut, **parts))
    (ready,) = resumed.all(Ready)
    assert (ready.step, ready.differences) == (CUT, [])
    assert_same_end(whole, resumed)
    for key in whole.metric_keys():
        assert resumed.points(key) == {step: v for step, v in whole.points(key).items() if step > CUT}, key
    assert min(resumed.points("optimizer/update_ratio")) == 40


def assert_same_end(whole: Trained, resumed: Trained) -> None:
    """Weights, optimizer state, random generators, windows and summary: the files are equal byte for byte."""
    assert resumed.finished == whole.finished
    one, other = whole.checkpoint(whole.finished.step), resumed.checkpoint(whole.finished.step)
    assert other.model_sha256 == one.model_sha256
    assert other.state_sha256 == one.state_sha256
    assert other.summary == one.summary


def test_stopping_on_request_and_going_on(tmp_path: Path) -> None:
    """Three attempts, stopped wherever the request happens to arrive."""
    parts = parts_of("mlp, dropout, adam, cosine")
    parts["training"] |= {"steps": 150, "checkpoint_every": None}
    whole = Trained(trainer_job(tmp_path / "whole", **parts))

    def stop(message: Message, control: Control) -> None:
        control.stop = "drain"

    first = Trained(trainer_job(tmp_path / "first", **parts), on_message=stop)
    assert first.end == Stopped("drain", 1)
    saved = first.checkpoint(1)
    assert (saved.kind, first.messages[-2]) == ("drain", saved)

    def stop_later(message: Message, control: Control) -> None:
        if isinstance(message, Ready):
            control.stop = "pause"

    second = Trained(trainer_job(tmp_path / "second", files(saved), **parts), on_message=stop_later)
    assert second.end == Stopped("pause", 2)
    third = Trained(trainer_job(tmp_path / "third", files(second.checkpoint(2)), **parts))
    assert_same_end(whole, third)
    assert first.points("val/loss") | second.points("val/loss") | third.points("val/loss") == whole.points("val/loss")


def test_a_finished_run_resumed_says_so_again(tmp_path: Path) -> None:
    """The attempt may have died between its last checkpoint and its last message."""
    parts = parts_of("mlp, amsgrad, clip, groups, early stopping")
    whole = Trained(trainer_job(tmp_path / "whole", **parts))
    assert whole.finished.summary["stopped_early"]
    last = files(whole.checkpoint(whole.finished.step))
    again = Trained(trainer_job(tmp_path / "again", last, **parts))
    assert again.finished == whole.finished
    assert again.all(Checkpoint) == []


def test_another_thread_count_is_named(tmp_path: Path) -> None:
    parts = parts_of("cnn, momentum")
    whole = Trained(trainer_job(tmp_path / "whole", **parts))
    parts["training"] |= {"threads": 2}
    resumed = Trained(trainer_job(tmp_path / "resumed", files(whole.checkpoint(CUT)), **parts))
    assert resumed.all(Ready)[0].differences == ["threads: was 1, is 2"]


def test_another_kernel_is_named(tmp_path: Path) -> None:
    """TRAIND_KERNEL is read once by a process, so the other one resumes in a process of its own."""
    parts = parts_of("mlp, amsgrad, clip, groups, early stopping")
    job = trainer_job(tmp_path / "whole", **parts)
    cut = files(Trained(job).checkpoint(CUT))
    spec = tmp_path / "spec.json"
    spec.write_text(job.spec.model_dump_json())
    command = [sys.executable, "-m", "worker.training", str(spec), "--out", str(tmp_path / "out")]
    command += ["--resume", str(cut.model_path), str(cut.state_path)]
    environment = os.environ | {"TRAIND_KERNEL": "torch"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    here = optimizer_backend("cpu")
    differences = [] if here == "torch" else [f"optimizer: was {here}, is torch"]
    assert [m["differences"] for m in messages if m["type"] == "ready"] == [differences]
    assert messages[-1]["state"] == "succeeded"


@pytest.mark.parametrize(
    ("backend", "recorded"),
    [
        ("native (avx2)", "native (avx2)"),
        ("native (portable)", "native (portable)"),
        ("torch", "torch"),
        ("torch (not built: No module named 'optim_core._kernel')", "torch"),
    ],
)
def test_why_a_kernel_is_missing_is_no_difference(monkeypatch: pytest.MonkeyPatch, backend: str, recorded: str) -> None:
    monkeypatch.setattr("worker.training.fingerprint.backend", lambda: backend)
    assert fingerprint(torch.device("cpu"), "")["optimizer"] == recorded


def test_on_a_gpu_it_is_the_kernel_there_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton compiles it, so its version may decide bits; the native kernel has no part in it."""
    triton = pytest.importorskip("triton")
    assert optimizer_backend("cuda") == f"triton {triton.__version__}"
    monkeypatch.setattr("optim_core.gpu.available", lambda: False)
    assert optimizer_backend("cuda") == "torch"


SERVICE = ["sqlalchemy", "psycopg", "celery", "kombu", "redis", "fastapi", "alembic", "jobs.tables"]


def test_in_a_fresh_process_without_database_and_broker(tmp_path: Path) -> None:
    parts = parts_of("mlp, dropout, adam, cosine")
    job = trainer_job(tmp_path / "whole", **parts)
    whole = Trained(job)
    cut = files(whole.checkpoint(CUT))
    spec = tmp_path / "spec.json"
    spec.write_text(job.spec.model_dump_json())
    code = (
        "import sys; from worker.training.__main__ import main; main(sys.argv[1:]);"
        f"print(set({SERVICE}) & sys.modules.keys(), file=sys.stderr)"
    )
    arguments = [str(spec), "--out", str(tmp_path / "out"), "--resume", str(cut.model_path), str(cut.state_path)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    *_, checkpoint, finished = map(json.loads, done.stdout.splitlines())
    assert finished["summary"] == whole.finished.summary
    assert checkpoint["model_sha256"] == whole.checkpoint(60).model_sha256
    assert checkpoint["state_sha256"] == whole.checkpoint(60).state_sha256
    assert done.stderr.strip() == "set()"
