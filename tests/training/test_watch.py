"""A run's own rules of divergence: which step, which tensor, which checkpoint; and a resumed run counts on."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.checking import result
from tests.training.scenario import Trained, files, trainer_job
from traind.spec import DivergenceRule
from worker.training.divergence import Divergence
from worker.training.messages import Checkpoint, Ready, Verify
from worker.training.watch import Watch

EXPLODES: dict[str, Any] = {
    "dataset": {"name": "synthetic_regression", "n_samples": 100},
    "model": {"name": "linear"},
    "optimizer": {"name": "sgd", "lr": 0.55},
}
"""The loss is about doubled by each step, once the steepest direction leads."""


def trained(folder: Path, rule: dict[str, Any], **training: Any) -> Trained:
    training = {"steps": 50, "batch_size": "full", "eval_every": 50, "divergence": rule} | training
    return Trained(trainer_job(folder, **EXPLODES, training=training))


def error_of(run: Trained) -> dict[str, Any]:
    assert run.finished.state == "diverged"
    assert run.finished.error is not None
    return run.finished.error


def first_streak(values: dict[int, float], factor: float, length: int) -> int:
    """The step at which `length` values in a row were above `factor` times the first."""
    streak = 0
    for step, value in values.items():
        streak = streak + 1 if value > factor * values[1] else 0
        if streak == length:
            return step
    raise AssertionError("it never was")


@pytest.mark.parametrize("length", [1, 4])
def test_a_loss_that_stays_above_its_start(tmp_path: Path, length: int) -> None:
    whole = Trained(trainer_job(tmp_path / "whole", **EXPLODES, training={"steps": 30, "batch_size": "full"}))
    run = trained(tmp_path / "rule", {"loss_factor": 10, "patience_steps": length}, checkpoint_every=1)
    error = error_of(run)
    step = first_streak(whole.points("train/loss"), 10, length)
    assert (error["code"], error["cause"], error["rule"]) == ("diverged", "loss", "loss_factor")
    assert (error["retryable"], error["tensor"], error["step"]) == (False, "1.weight", step)
    assert error["last_checkpoint_step"] == step - length
    assert run.all(Checkpoint)[-1].step == step - 1
    assert max(run.points("train/loss")) == step == run.finished.step
    assert "times its start" in error["message"]
    assert ("for 4 steps" in error["message"]) == (length == 4)


def test_a_loss_that_comes_back_is_no_divergence() -> None:
    """Every second step is above; never two in a row."""
    watch, finished = Watch(DivergenceRule(loss_factor=2.0, patience_steps=2), nn.Linear(1, 1)), 0
    for step in range(1, 101):
        watch.see_loss(step, 1.0 if step % 2 else 3.0, None)
        finished = step
    assert finished == 100


def test_an_update_that_explodes_names_what_moved_the_most(tmp_path: Path) -> None:
    run = trained(tmp_path, {"update_norm_factor": 5, "patience_steps": 2}, telemetry_every=1, checkpoint_every=1)
    error = error_of(run)
    norms = run.points("optimizer/update_norm")
    assert error["step"] == first_streak(norms, 5, 2) == run.finished.step
    assert (error["cause"], error["rule"], error["tensor"]) == ("update", "update_norm_factor", "1.weight")
    assert error["last_checkpoint_step"] == error["step"] - 2
    assert error["message"].startswith(
        f"the update (1.weight) was above 5 times its start, {norms[1]:.4g}, for 2 steps"
    )


def test_a_warm_up_is_no_explosion(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"optimizer": {"name": "adam"}, "schedule": {"name": "cosine", "warmup_steps": 40}}
    rule = {"update_norm_factor": 3, "patience_steps": 1}
    run = Trained(trainer_job(tmp_path, **parts, training={"steps": 60, "divergence": rule, "telemetry_every": 1}))
    norms = run.points("optimizer/update_norm")
    assert max(norms.values()) > 3 * norms[1]
    assert run.finished.state == "succeeded"


def test_rules_that_are_not_met_change_no_bit(tmp_path: Path) -> None:
    plain = Trained(trainer_job(tmp_path / "plain", training={"steps": 20}))
    rule = {"loss_factor": 50.0, "update_norm_factor": 50.0}
    ruled = Trained(trainer_job(tmp_path / "ruled", training={"steps": 20, "divergence": rule}))
    assert ruled.checkpoint(20).model_sha256 == plain.checkpoint(20).model_sha256
    assert ruled.points("train/loss") == plain.points("train/loss")


@pytest.mark.parametrize("rule", [{"loss_factor": 10}, {"update_norm_factor": 5}])
def test_a_resumed_run_diverges_in_the_same_step(tmp_path: Path, rule: dict[str, Any]) -> None:
    """Cut before the streak and inside it."""
    rule |= {"patience_steps": 4}
    whole = trained(tmp_path / "whole", rule, checkpoint_every=1)
    error = error_of(whole)
    for step in (1, error["step"] - 2):
        job = trainer_job(
            tmp_path / f"from-{step}",
            files(whole.checkpoint(step)),
            **EXPLODES,
            training={"steps": 50, "batch_size": "full", "eval_every": 50, "divergence": rule, "checkpoint_every": 1},
        )
        assert error_of(Trained(job)) == error


def test_a_verify_counts_the_streaks_too(tmp_path: Path) -> None:
    rule = {"loss_factor": 2, "update_norm_factor": 2, "patience_steps": 45}
    whole = trained(tmp_path / "whole", rule, checkpoint_every=20)
    task = Verify(
        step=40,
        final=False,
        subject=files(whole.checkpoint(40)),
        intact={"model": True, "state": True},
        trained_by=(whole.all(Ready)[0].fingerprint,),
    )
    training = {"steps": 50, "batch_size": "full", "eval_every": 50, "divergence": rule, "checkpoint_every": 20}
    job = trainer_job(tmp_path / "check", files(whole.checkpoint(20)), **EXPLODES, training=training)
    assert result(Trained(job.model_copy(update={"check": task})))["equal"]


def see(watch: Watch, *losses: float) -> None:
    for step, loss in enumerate(losses, 1):
        watch.see_loss(step, loss, step - 1)


@pytest.mark.parametrize(("losses", "step"), [((1, 2, 2.1), 3), ((0, 0, 1, 5), 4), ((1, nan), 2), ((1, inf), 2)])
def test_the_edges_of_a_streak(losses: tuple[float, ...], step: int) -> None:
    """Above, not at; a start of 0 sets no limit; NaN and infinity are above."""
    watch = Watch(DivergenceRule(loss_factor=2.0, patience_steps=1), nn.Linear(1, 1))
    with pytest.raises(Divergence) as raised:
        see(watch, *losses)
    assert raised.value.step == step


def test_a_limit_beyond_all_numbers_is_never_met() -> None:
    watch = Watch(DivergenceRule(loss_factor=1e18, patience_steps=1), nn.Linear(1, 1))
    see(watch, 1e300, 1e308)


def test_the_tensor_is_the_one_with_the_largest_gradient() -> None:
    model = nn.Linear(2, 2)
    watch = Watch(DivergenceRule(loss_factor=2.0, patience_steps=1), model)
    model.weight.grad = torch.full((2, 2), 0.1)
    model.bias.grad = torch.full((2,), 5.0)
    with pytest.raises(Divergence, match=r"the loss \(bias\) was above 2 times its start, 1, in step 2"):
        see(watch, 1, 3)


def test_a_checkpoint_without_a_watch_begins_one() -> None:
    watch = Watch(DivergenceRule(loss_factor=2.0), nn.Linear(1, 1))
    watch.restore(None)
    assert watch.state() == {
        "loss": {"start": None, "count": 0, "good": None},
        "update": {"start": None, "count": 0, "good": None},
    }
    assert Watch(None, nn.Linear(1, 1)).state() is None
