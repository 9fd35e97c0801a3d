"""Telemetry: what the optimizer did in one step, by param group; it is true, and it changes nothing."""

from __future__ import annotations

import re
from math import inf, isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.scenario import Trained, files, trainer_job
from traind.spec_doc import METRICS
from worker.training.data import load_data
from worker.training.messages import Metrics, decode, encode
from worker.training.models import build_model
from worker.training.tensor_file import read_tensors, write_tensors

NORMS = {"optimizer/grad_norm", "optimizer/update_norm", "optimizer/update_ratio"}
RATES = {"optimizer/rate_p05", "optimizer/rate_p50", "optimizer/rate_p95"}
GROUPS = [{"params": "*.bias", "lr": 0.01}]
SGD = {"name": "sgd", "lr": 0.5, "param_groups": GROUPS}
ADAM = {"name": "adam", "lr": 0.02, "param_groups": GROUPS}
REGRESSION = {"dataset": {"name": "synthetic_regression", "n_samples": 100}, "model": {"name": "linear"}}


def trained(folder: Path, **parts: Any) -> Trained:
    """Ten steps, measured each time unless told otherwise."""
    parts["training"] = {"steps": 10, "telemetry_every": 1} | parts.get("training", {})
    return Trained(trainer_job(folder, **parts))


def measured_keys(run: Trained) -> set[str]:
    return {key for key in run.metric_keys() if key.startswith("optimizer/")}


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert measured_keys(trained(tmp_path, optimizer=ADAM, training={"telemetry_every": None})) == set()


def test_points_stand_at_multiples_of_its_interval(tmp_path: Path) -> None:
    run = trained(tmp_path, optimizer=SGD, training={"telemetry_every": 4, "log_every": 3})
    assert measured_keys(run) == NORMS | {f"{key}/1" for key in NORMS}
    assert {key: list(run.points(key)) for key in NORMS} == {key: [4, 8] for key in NORMS}


def test_an_interval_beyond_the_end_measures_nothing(tmp_path: Path) -> None:
    assert measured_keys(trained(tmp_path, training={"telemetry_every": 2**31 - 1})) == set()


def test_the_norms_of_a_first_step_of_sgd(tmp_path: Path) -> None:
    run = trained(tmp_path, model={"name": "mlp", "hidden": [16]}, optimizer=SGD, training={"seed": 4})
    torch.manual_seed(4)
    initial = dict(build_model(trainer_job(tmp_path).spec.model, (1, 8, 8), 10).named_parameters())
    for suffix, kind, lr in (("", "weight", 0.5), ("/1", "bias", 0.01)):
        weights = torch.cat([value.detach().flatten() for name, value in initial.items() if name.endswith(kind)])
        gradient = run.points(f"optimizer/grad_norm{suffix}")[1]
        update = run.points(f"optimizer/update_norm{suffix}")[1]
        assert update == pytest.approx(lr * gradient, rel=1e-4)
        ratio = update / weights.double().norm().item()
        assert run.points(f"optimizer/update_ratio{suffix}")[1] == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_rates_of_adam_are_those_of_its_state(tmp_path: Path, amsgrad: bool) -> None:
    optimizer = ADAM | {"eps": 1e-4, "betas": [0.8, 0.95], "amsgrad": amsgrad}
    run = trained(tmp_path, model={"name": "mlp", "hidden": [16]}, optimizer=optimizer)
    state, _ = read_tensors(files(run.checkpoint(10)).state_path)
    for suffix, kind, lr in (("", "weight", 0.02), ("/1", "bias", 0.01)):
        key = f"{kind}/max_exp_avg_sq" if amsgrad else f"{kind}/exp_avg_sq"
        second = np.concatenate([value.double().flatten() for name, value in state.items() if name.endswith(key)])
        rates = lr / (1 - 0.8**10) / (np.sqrt(second) / np.sqrt(1 - 0.95**10) + 1e-4)
        found = [run.points(f"{key}{suffix}")[10] for key in sorted(RATES)]
        assert found == pytest.approx(np.quantile(rates, [0.05, 0.5, 0.95]), rel=1e-9)


def test_a_clipped_gradient_is_measured_before_and_its_update_after(tmp_path: Path) -> None:
    optimizer = {"name": "sgd", "lr": 0.5}
    run = trained(tmp_path, optimizer=optimizer, training={"grad_clip_norm": 0.01})
    assert run.points("optimizer/grad_norm") == pytest.approx(run.points("grad_norm"), rel=1e-6)
    assert min(run.points("grad_norm").values()) > 0.1
    assert list(run.points("optimizer/update_norm").values()) == pytest.approx([0.5 * 0.01] * 10, rel=1e-3)


def test_clipping_trains_as_torchs(tmp_path: Path) -> None:
    """Momentum over clipped gradients, against a loop of torch's own parts; where the clip binds and where not."""
    parts: dict[str, Any] = REGRESSION | {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}
    training = {"steps": 20, "batch_size": "full", "grad_clip_norm": 1.0}
    run = trained(tmp_path, **parts, training=training)
    norms = run.points("grad_norm")
    assert min(norms.values()) < 1.0 < max(norms.values())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, targets = _training_data(tmp_path, parts)
    for step in range(1, 21):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        assert nn.utils.clip_grad_norm_(model.parameters(), 1.0).item() == pytest.approx(norms[step], rel=1e-4)
        optimizer.step()
    weights, _ = read_tensors(files(run.checkpoint(20)).model_path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


def _training_data(folder: Path, parts: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    job = trainer_job(folder, **parts)
    data = load_data(job.spec.dataset, job.settings, torch.device("cpu"))
    return data.train_inputs, data.train_targets


@pytest.mark.parametrize("optimizer", [SGD | {"momentum": 0.9}, ADAM], ids=["sgd", "adam"])
def test_measuring_changes_no_bit(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    training = {"steps": 40, "grad_clip_norm": 0.5}
    with_it, without = (
        trained(tmp_path / str(every), optimizer=optimizer, training=training | {"telemetry_every": every})
        for every in (3, None)
    )
    assert with_it.checkpoint(40).model_sha256 == without.checkpoint(40).model_sha256
    assert with_it.points("train/loss") == without.points("train/loss")


def test_the_summary_has_its_last_values_and_no_best(tmp_path: Path) -> None:
    run = trained(tmp_path, optimizer=ADAM, training={"telemetry_every": 4})
    summary = run.finished.summary
    assert summary["last"]["optimizer/rate_p50/1"] == run.points("optimizer/rate_p50/1")[8]
    assert summary["best"].keys() == {"val/loss", "val/accuracy"}


def test_an_update_too_large_for_a_number_is_a_point_too(tmp_path: Path) -> None:
    """Loss and gradient are finite; the step that leaves infinite parameters is measured, the one it stops is not."""
    saved = trained(tmp_path / "a", **REGRESSION, training={"steps": 1}).checkpoint(1)
    paths = files(saved)
    weights, head = read_tensors(paths.model_path)
    state, document = read_tensors(paths.state_path)
    weights["1.bias"].fill_(1e18)
    written = write_tensors(paths.model_path, weights, head)
    write_tensors(paths.state_path, state, document | {"model_crc32": written.crc32})
    parts = REGRESSION | {"optimizer": {"name": "sgd", "lr": 1e18, "weight_decay": 1e10}}
    training = {"steps": 4, "telemetry_every": 1, "eval_every": 4}
    run = Trained(trainer_job(tmp_path / "b", paths, **parts, training=training))
    assert run.finished.state == "diverged"
    assert run.finished.step == 3
    assert isfinite(run.points("optimizer/grad_norm")[2])
    assert list(run.points("optimizer/update_norm")) == [2]
    assert not isfinite(run.points("optimizer/update_norm")[2])
    assert run.finished.summary["last"]["optimizer/update_norm"] == inf
    assert run.finished.summary["last"]["optimizer/grad_norm"] > 0


def test_the_ratio_to_parameters_that_are_all_zero_is_nan(tmp_path: Path) -> None:
    """As with batch norm's biases in their first step; it survives the way to the worker."""
    layers = [{"type": "flatten"}, {"type": "batch_norm1d"}, {"type": "linear", "out_features": 10}]
    optimizer = SGD | {"param_groups": [{"params": "1.bias"}]}
    run = trained(tmp_path, model={"name": "sequential", "layers": layers}, optimizer=optimizer, training={"steps": 2})
    ratio = run.points("optimizer/update_ratio/1")
    assert isnan(ratio[1])
    assert ratio[2] > 0
    received = decode(encode(run.all(Metrics)[0]))
    assert isinstance(received, Metrics)
    assert isnan(received.columns["optimizer/update_ratio/1"]["values"][0])


def test_the_page_names_every_key(tmp_path: Path) -> None:
    """docs/spec.md is made from METRICS."""
    run = trained(tmp_path, optimizer=ADAM, training={"grad_clip_norm": 1.0})
    rows = [line for line in METRICS.splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert named == {key.removesuffix("/1") for key in run.metric_keys()}
