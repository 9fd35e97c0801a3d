"""`python -m worker.training spec.json`: from a shell, with nothing of the service around."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.training.__main__ import main

SPEC = {
    "dataset": {"name": "digits"},
    "model": {"name": "linear"},
    "optimizer": {"name": "sgd"},
    "training": {"steps": 3, "threads": 1},
}


def write(folder: Path, **parts: Any) -> str:
    path = folder / "spec.json"
    path.write_text(json.dumps(SPEC | parts))
    return str(path)


def test_it_prints_its_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([write(tmp_path), "--out", str(tmp_path / "new" / "out")]) == 0
    out, err = capsys.readouterr()
    messages = [json.loads(line) for line in out.splitlines()]
    assert messages[0] == {"type": "phase", "name": "load"}
    assert messages[-1]["type"] == "finished"
    assert Path(messages[-2]["model_path"]).is_relative_to(tmp_path / "new" / "out")
    assert err == ""


def test_a_divergence_has_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"dataset": {"name": "synthetic_regression"}, "optimizer": {"name": "sgd", "lr": 1e18}}
    assert main([write(tmp_path, **parts), "--out", str(tmp_path)]) == 3
    assert "diverged: the loss (1.weight) became non-finite in step 3" in capsys.readouterr().err


def test_a_failure_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [write(tmp_path, dataset={"name": "fashion_mnist"}), "--out", str(tmp_path)]
    assert main([*arguments, "--fashion-mnist-dir", "/nonexistent", "--cache-dir", "/nonexistent"]) == 1
    assert "dataset-unavailable: train-images-idx3-ubyte.gz is neither in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            json.dumps(SPEC | {"model": {"name": "mlp", "hidden": [0]}}),
            "error: /model/hidden/0: must be at least 1, not 0",
        ),
        (json.dumps(SPEC | {"model": {"name": "cnn", "channels": [1] * 4}}), "error: /model/channels/3: "),
        ("{", "is not JSON"),
        (None, "No such file"),
    ],
)
def test_a_bad_spec_is_named(text: str | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.json"
    if text is not None:
        path.write_text(text)
    assert main([str(path), "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err


def test_ctrl_c_takes_a_checkpoint_that_can_be_resumed(tmp_path: Path) -> None:
    spec = write(tmp_path, training={"steps": 2_000_000, "threads": 1, "eval_every": 2_000_000, "log_every": 1000})
    command = [sys.executable, "-X", "importtime", "-m", "worker.training", spec, "--out", str(tmp_path)]
    said = tmp_path / "stderr"
    with said.open("w") as stderr, subprocess.Popen(command, stdout=-1, stderr=stderr, text=True) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["type"] != "progress":
            pass
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate()
    err = said.read_text()
    assert process.returncode == 130, err
    assert "torch.optim.optimizer" in err
    assert "torch._dynamo" not in err, "which takes over a second to import, and is not needed"
    *_, checkpoint, stopped = map(json.loads, out.splitlines())
    assert stopped == {"type": "stopped", "kind": "pause", "step": checkpoint["step"]}
    assert f"stopped at step {stopped['step']}; go on with --resume" in err
