"""Whole runs: they learn, say what they do in order, and end in the outcome that they reached."""

from __future__ import annotations

from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.scenario import Trained, files, trainer_job
from worker.training import checkpoints, loop
from worker.training.data import load_data
from worker.training.divergence import Divergence, check_parameters, check_step
from worker.training.evaluate import evaluate, loss_function
from worker.training.messages import (
    Checkpoint,
    CheckpointFiles,
    Failed,
    Metrics,
    Phase,
    Progress,
    Ready,
)
from worker.training.models import build_model
from worker.training.tensor_file import read_tensors, write_tensors

MLP = {"name": "mlp", "hidden": [64]}
STEEP = {"optimizer": {"name": "sgd", "lr": 1e18, "weight_decay": 1e10}}
REGRESSION = {"dataset": {"name": "synthetic_regression", "n_samples": 100}, "model": {"name": "linear"}}


@pytest.mark.parametrize(
    "optimizer",
    [{"name": "sgd", "lr": 0.05, "momentum": 0.9}, {"name": "adam", "lr": 3e-3}],
    ids=["sgd with momentum", "adam"],
)
def test_digits_are_learned(optimizer: dict[str, Any], tmp_path: Path) -> None:
    trained = Trained(trainer_job(tmp_path, model=MLP, optimizer=optimizer, training={"epochs": 12}))
    assert trained.finished.summary["last"]["val/accuracy"] > 0.95


def test_a_regression_is_learned_to_its_noise(tmp_path: Path) -> None:
    dataset = {"name": "synthetic_regression", "n_samples": 500, "n_features": 5, "noise": 0.1}
    trained = Trained(
        trainer_job(tmp_path, dataset=dataset, model={"name": "linear"}, optimizer={"name": "sgd", "lr": 0.1})
    )
    assert trained.finished.summary["last"]["val/loss"] == pytest.approx(0.01, rel=0.5)
    assert trained.metric_keys() == {"train/loss", "lr", "val/loss"}


def test_the_messages_of_a_run_in_their_order(tmp_path: Path) -> None:
    training = {"steps": 100, "checkpoint_every": 40, "eval_every": 30, "grad_clip_norm": 1.0}
    trained = Trained(trainer_job(tmp_path, training=training))
    (ready,) = trained.all(Ready)
    assert (ready.step, ready.n_parameters) == (0, 64 * 16 + 16 + 16 * 10 + 10)
    assert trained.messages[0] == Phase("load")
    assert trained.messages[1:3] == [ready, Phase("train")]
    assert [(c.step, c.kind) for c in trained.all(Checkpoint)] == [(40, "interval"), (80, "interval"), (100, "final")]
    last = [message for message in trained.messages if message != trained.checkpoint(80)]  # a thread sends it
    assert last[-3:] == [Phase("checkpoint"), trained.checkpoint(100), trained.finished]
    assert trained.points("train/loss").keys() == set(range(1, 101))
    assert trained.points("val/loss").keys() == {30, 60, 90, 100}
    assert trained.metric_keys() == {"train/loss", "train/accuracy", "grad_norm", "lr", "val/loss", "val/accuracy"}
    assert trained.finished.summary == trained.checkpoint(100).summary
    assert trained.all(Progress)[0].step == 1


def test_metrics_up_to_a_checkpoint_leave_before_it(tmp_path: Path) -> None:
    trained = Trained(trainer_job(tmp_path, training={"steps": 20, "checkpoint_every": 3}))
    for checkpoint in trained.all(Checkpoint):
        before = trained.messages[: trained.messages.index(checkpoint)]
        sent = {step for m in before if isinstance(m, Metrics) for step in m.columns["train/loss"]["steps"]}
        assert set(range(1, checkpoint.step + 1)) <= sent


def test_the_files_of_a_checkpoint_are_what_the_message_says(tmp_path: Path) -> None:
    trained = Trained(trainer_job(tmp_path, training={"steps": 2}))
    saved = trained.checkpoint(2)
    assert Path(saved.model_path).stat().st_size == saved.model_size
    assert Path(saved.state_path).stat().st_size == saved.state_size
    assert set(load_file(saved.model_path)) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_the_last_window_may_be_short(tmp_path: Path) -> None:
    trained = Trained(trainer_job(tmp_path, training={"steps": 10, "log_every": 4}))
    assert list(trained.points("train/loss")) == [4, 8, 10]


def test_the_schedule_reaches_the_optimizer_and_its_metric(tmp_path: Path) -> None:
    schedule = {"name": "linear", "warmup_steps": 2}
    optimizer = {"name": "sgd", "lr": 1.0, "param_groups": [{"params": "*.bias", "lr": 0.5}]}
    trained = Trained(trainer_job(tmp_path, optimizer=optimizer, schedule=schedule, training={"steps": 6}))
    assert trained.points("lr") == {1: 0.5, 2: 1.0, 3: 1.0, 4: 0.75, 5: 0.5, 6: 0.25}
    assert trained.points("lr/1") == {step: rate / 2 for step, rate in trained.points("lr").items()}


def test_early_stopping_ends_a_run_as_a_success(tmp_path: Path) -> None:
    training = {"steps": 500, "eval_every": 5, "early_stopping": {"patience": 2, "min_delta": 1e9}}
    trained = Trained(trainer_job(tmp_path, training=training))
    assert (trained.finished.state, trained.finished.step) == ("succeeded", 15)
    assert trained.finished.summary["stopped_early"]
    assert trained.checkpoint(15).kind == "final"
    whole = Trained(trainer_job(tmp_path, training=training | {"steps": 15}))
    assert whole.finished.step == 15
    assert "stopped_early" not in whole.finished.summary, "it was its last step anyway"


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path) -> None:
    model = MLP | {"dropout": 0.5}
    one, two, other = (
        Trained(trainer_job(tmp_path / name, model=model, training={"steps": 20, "seed": seed}))
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one.points("train/loss") == two.points("train/loss")
    assert one.checkpoint(20).model_sha256 == two.checkpoint(20).model_sha256
    assert one.checkpoint(20).model_sha256 != other.checkpoint(20).model_sha256


# --- divergence --------------------------------------------------------------------------------------


def test_a_loss_that_explodes_is_an_outcome(tmp_path: Path) -> None:
    dataset = {"name": "synthetic_regression", "n_samples": 100}
    optimizer = {"name": "sgd", "lr": 1e6}
    training = {"steps": 500, "checkpoint_every": 2, "eval_every": 500, "log_every": 100, "threads": 1}
    job = trainer_job(tmp_path, dataset=dataset, model={"name": "linear"}, optimizer=optimizer, training=training)
    end = Trained(job)
    assert end.finished.state == "diverged"
    error = end.finished.error
    assert error is not None
    assert (error["code"], error["cause"], error["retryable"]) == ("diverged", "loss", False)
    assert error["step"] == end.finished.step < 30
    assert error["tensor"] == "1.weight"  # all of them are finite, and this one's gradient is the largest
    assert error["last_checkpoint_step"] == end.all(Checkpoint)[-1].step < error["step"]
    ((step, value),) = end.points("train/loss").items()
    assert step == error["step"]
    assert end.finished.summary["last"]["train/loss"] == value == inf


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_explodes_under_a_finite_loss_names_its_tensor(tmp_path: Path, clip: float | None) -> None:
    """Weights as large as float32 allows: the product of two in the backward pass is too large for it."""
    parts: dict[str, Any] = {"dataset": {"name": "synthetic_regression", "n_samples": 100}}
    parts["model"] = {"name": "mlp", "hidden": [4], "activation": "leaky_relu"}
    clipped = {"grad_clip_norm": clip}
    saved = Trained(trainer_job(tmp_path / "a", **parts, training={"steps": 1} | clipped)).checkpoint(1)
    tampered = _with_weights(saved, {"1.weight": 1e-20, "1.bias": 0.0, "3.weight": 1e37})
    end = Trained(trainer_job(tmp_path / "b", tampered, **parts, training={"steps": 5, "eval_every": 5} | clipped))
    error = end.finished.error
    assert error is not None
    assert (error["cause"], error["tensor"], error["step"]) == ("gradient", "1.weight", 2)
    assert error["last_checkpoint_step"] == 1
    assert isfinite(end.points("train/loss")[2])


def _with_weights(saved: Checkpoint, values: dict[str, float]) -> CheckpointFiles:
    paths = files(saved)
    weights, head = read_tensors(paths.model_path)
    state, document = read_tensors(paths.state_path)
    for name, value in values.items():
        weights[name].fill_(value)
    written = write_tensors(paths.model_path, weights, head)
    write_tensors(paths.state_path, state, document | {"model_crc32": written.crc32})
    return paths


def test_parameters_that_became_infinite_are_no_good_checkpoint(tmp_path: Path) -> None:
    """Loss and gradient are finite, but weight decay and learning rate make more of it than float32 holds."""
    saved = Trained(trainer_job(tmp_path / "a", **REGRESSION, training={"steps": 1})).checkpoint(1)
    far = _with_weights(saved, {"1.bias": 1e18})
    end = Trained(trainer_job(tmp_path / "b", far, **REGRESSION | STEEP, training={"steps": 3, "checkpoint_every": 2}))
    error = end.finished.error
    assert error is not None
    assert (error["cause"], error["tensor"], error["step"]) == ("parameter", "1.bias", 2)
    assert (error["last_checkpoint_step"], end.all(Checkpoint)) == (1, [])


def test_what_is_finite_passes_even_where_a_sum_overflows() -> None:
    model = torch.nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    check_step(model, [p.grad for p in model.parameters()], 1, 0.5)
    with torch.no_grad():
        model.weight.fill_(3e38)
    check_parameters(model, 1)
    assert model.bias.grad is not None
    model.bias.grad[1] = torch.nan
    with pytest.raises(Divergence, match=r"the gradient \(bias\) became non-finite in step 7"):
        check_step(model, [p.grad for p in model.parameters()], 7, 0.5)
    with pytest.raises(Divergence, match=r"the loss \(bias\) became non-finite in step 7"):
        check_step(model, (), 7, nan)


def test_a_validation_loss_that_overflows_is_a_divergence(tmp_path: Path) -> None:
    """With finite parameters, and a training loss that was finite in the one sample before."""
    saved = Trained(trainer_job(tmp_path / "a", **REGRESSION, training={"steps": 1})).checkpoint(1)
    large = _with_weights(saved, {"1.weight": 0.0, "1.bias": 1e19})
    parts = REGRESSION | {"optimizer": {"name": "sgd", "lr": 0.0}}
    end = Trained(trainer_job(tmp_path / "b", large, **parts, training={"steps": 2, "batch_size": 1, "eval_every": 2}))
    error = end.finished.error
    assert error is not None
    assert (error["cause"], error["tensor"], error["step"]) == ("loss", "1.bias", 2)
    assert not isfinite(end.points("val/loss")[2])


# --- evaluation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [7, 355, 1_000])
def test_evaluation_is_the_mean_over_all_samples(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.training.evaluate.EVALUATION_BATCH", batch)
    job = trainer_job(tmp_path)
    data = load_data(job.spec.dataset, job.settings, torch.device("cpu"))
    torch.manual_seed(0)
    model = torch.nn.Sequential(*build_model(job.spec.model, (1, 8, 8), 10), torch.nn.Dropout(0.9))
    beats: list[int] = []
    values = evaluate(model, data, loss_function("cross_entropy"), lambda: beats.append(1))
    model.eval()
    outputs = model(data.validation_inputs)
    expected = torch.nn.functional.cross_entropy(outputs, data.validation_targets)
    assert values["val/loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert values["val/accuracy"] == (outputs.argmax(1) == data.validation_targets).sum().item() / 355
    assert len(beats) == -(-355 // batch)


# --- failures ----------------------------------------------------------------------------------------


def failure(trained: Trained) -> Failed:
    assert isinstance(trained.end, Failed), trained.end
    return trained.end


def test_a_dataset_that_cannot_be_read_may_be_read_elsewhere(tmp_path: Path) -> None:
    failed = failure(Trained(trainer_job(tmp_path, dataset={"name": "fashion_mnist"})))
    assert (failed.code, failed.retryable, failed.traceback) == ("dataset-unavailable", True, None)


def test_a_full_scratch_fails_and_may_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SPARE_BYTES", 1 << 60)
    failed = failure(Trained(trainer_job(tmp_path, training={"steps": 1})))
    assert (failed.code, failed.retryable) == ("scratch-full", True)


def test_no_gpu_fails_and_may_be_tried_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    job = trainer_job(tmp_path, resources={"device": "cuda"}, training={"steps": 1})
    failed = failure(Trained(job))
    assert (failed.code, failed.retryable) == ("device-unavailable", True)


def test_memory_that_is_not_there_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "set_rates", lambda *_: torch.empty(1 << 60))
    failed = failure(Trained(trainer_job(tmp_path)))
    assert (failed.code, failed.retryable) == ("out-of-memory", False)
    assert "smaller batch_size" in failed.message


def test_a_job_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    job = trainer_job(tmp_path)
    other = job.model_copy(update={"resolved": job.resolved.model_copy(update={"dataset_sha256": "0" * 64})})
    failed = failure(Trained(other))
    assert (failed.code, failed.retryable) == ("training-error", False)
    assert "different versions" in failed.message


def test_a_bug_is_reported_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "multiplier", None)
    failed = failure(Trained(trainer_job(tmp_path)))
    assert (failed.code, failed.retryable) == ("trainer-error", False)
    assert failed.traceback is not None
    assert "in _steps" in failed.traceback
