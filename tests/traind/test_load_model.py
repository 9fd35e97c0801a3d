"""Weights from the service to predictions: by `traind.load_model`, and by README.md's plain torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import traind
from tests.traind.commands import Here
from tests.training.raw import raw_digits
from tests.training.scenario import Trained, files, trainer_job
from traind.client import Client, Job

README = (Path(__file__).parents[2] / "README.md").read_text()


def accuracy(found: torch.Tensor) -> float:
    return (found == raw_digits()[1]).double().mean().item()


def test_a_downloaded_model_is_as_good_as_its_job_said(client: Client, finished: Job, tmp_path: Path) -> None:
    path = client.download(client.checkpoints(finished.id)[-1].id, tmp_path / "model.safetensors")
    model = traind.load_model(path)
    assert accuracy(model(raw_digits()[0]).argmax(1)) == finished.metrics.last["val/accuracy"]
    assert model.architecture.model_dump(mode="json") == finished.resolved["model"]


def test_get_shows_the_layers(here: Here, env: dict[str, str], finished: Job) -> None:
    shown = here("get", finished.id, env=env | {"COLUMNS": "200"})
    assert shown.returncode == 0
    calls = "Flatten() Linear(in_features=64, out_features=16, bias=True) ReLU() Linear(in_features=16"
    assert calls in re.sub(r"\s+", " ", shown.stdout)
    assert "grey levels" not in shown.stdout


def test_the_plain_torch_of_the_readme_is_as_good_as_its_job_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": [128]},
        "optimizer": {"name": "adam", "lr": 0.002},
        "training": {"epochs": 20},
    }
    run = Trained(trainer_job(tmp_path, **parts))
    files(run.checkpoint(920)).model_path.rename(tmp_path / "model.safetensors")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (line,) = re.findall(r"`(traind\.load_model\(.*)`", README)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images": raw_digits()[0].view(-1, 1, 8, 8), "traind": traind}
    exec(code, names)
    reported = run.finished.summary["last"]["val/accuracy"]
    assert accuracy(names["digits"]) == accuracy(eval(line, names)) == reported > 0.97


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_without_torch_it_names_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import traind; traind.load_model('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith(
        f"ImportError: traind.load_model needs {missing}; install the extra: pip install 'traind[worker]'\n"
    )


def test_source_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traind.weights.FUNCTIONS", "traind.functions-of-nobody")
    with pytest.raises(ImportError, match="not installed"):
        traind.load_model("x")


def test_without_the_numbers_of_the_normalisation_the_model_is_worse(
    client: Client, finished: Job, tmp_path: Path
) -> None:
    path = client.download(client.checkpoints(finished.id)[-1].id, tmp_path / "model.safetensors")
    model = traind.load_model(path)
    raw = raw_digits()[0].float().view(-1, 1, 8, 8)
    assert accuracy(model.layers(raw).argmax(1)) < accuracy(model(raw).argmax(1))
