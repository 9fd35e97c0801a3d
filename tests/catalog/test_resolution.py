"""From spec to Resolved: the numbers, and everything that is refused because the parts don't fit together."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.catalog import resolve
from traind.errors import InvalidSpec
from traind.spec import JobSpec

SYNTHETIC = {"name": "synthetic_classification", "n_samples": 41}  # 33 for training
BATCH_NORM = {
    "name": "sequential",
    "layers": [
        {"type": "linear", "out_features": 6},
        {"type": "batch_norm1d"},
        {"type": "linear", "out_features": 4},
    ],
}


def spec(**parts: Any) -> JobSpec:
    base = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "sgd"}}
    return JobSpec.model_validate(base | parts)


def problems(**parts: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as refused:
        resolve(spec(**parts))
    return [(p.pointer, p.message) for p in refused.value.problems]


def test_what_a_spec_amounts_to() -> None:
    resolved = resolve(spec(training={"epochs": 3}))
    assert resolved.model_dump(exclude={"dataset_sha256", "memory_bytes", "model"}) == {
        "input_shape": (1, 8, 8),
        "n_outputs": 10,
        "loss": "cross_entropy",
        "n_train": 1_442,
        "n_validation": 355,
        "n_parameters": 64 * 128 + 128 + 128 * 10 + 10,
        "batch_size": 32,
        "steps_per_epoch": 46,
        "total_steps": 138,
        "eval_every": 46,
        "device": None,
        "threads": None,
    }


def test_full_batch_and_steps() -> None:
    resolved = resolve(spec(training={"batch_size": "full", "steps": 7, "eval_every": 2, "threads": 3}))
    assert (resolved.batch_size, resolved.steps_per_epoch, resolved.total_steps) == (1_442, 1, 7)
    assert (resolved.eval_every, resolved.threads) == (2, 3)


@pytest.mark.parametrize(("asked", "device"), [("auto", None), ("cpu", "cpu"), ("cuda", "cuda")])
def test_only_device_auto_is_left_open(asked: str, device: str | None) -> None:
    assert resolve(spec(resources={"device": asked})).device == device


def test_a_regression_has_mse() -> None:
    resolved = resolve(spec(dataset={"name": "synthetic_regression", "n_targets": 3}, model={"name": "linear"}))
    assert (resolved.loss, resolved.n_outputs, resolved.n_train) == ("mse", 3, 1_600)


@pytest.mark.parametrize(
    ("parts", "pointer", "message"),
    [
        (
            {"training": {"batch_size": 1_443}},
            "/training/batch_size",
            '1443 is more than the 1442 training samples of digits; give "full" for all of them',
        ),
        (
            {"training": {"epochs": 1_000_000, "batch_size": 1}, "dataset": {"name": "fashion_mnist"}},
            "/training/epochs",
            "1,000,000 epochs of 60,000 steps are 60,000,000,000 steps; at most 2,147,483,647",
        ),
        (
            {"training": {"steps": 9}, "schedule": {"name": "cosine", "warmup_steps": 10}},
            "/schedule/warmup_steps",
            "a warm-up of 10 steps is longer than the run of 9",
        ),
        (
            {
                "dataset": {"name": "synthetic_regression"},
                "training": {"early_stopping": {"metric": "val/accuracy"}},
            },
            "/training/early_stopping/metric",
            "synthetic_regression is a regression and has no accuracy; give val/loss",
        ),
        (
            {"dataset": SYNTHETIC, "model": BATCH_NORM, "training": {"batch_size": 1}},
            "/training/batch_size",
            "a batch has 1 sample, but layer 1 (batch_norm1d) needs at least 2 to train on",
        ),
        (
            {"dataset": SYNTHETIC, "model": BATCH_NORM, "training": {"batch_size": 16}},
            "/training/batch_size",
            "the last batch of an epoch (33 samples in batches of 16) has 1 sample, "
            "but layer 1 (batch_norm1d) needs at least 2 to train on",
        ),
    ],
)
def test_refused(parts: dict[str, Any], pointer: str, message: str) -> None:
    assert problems(**parts) == [(pointer, message)]


@pytest.mark.parametrize(
    "training", [{"batch_size": 11}, {"batch_size": 32, "steps": 1}, {"batch_size": "full"}], ids=str
)
def test_batch_norm_is_fine_where_no_batch_has_one_sample(training: dict[str, Any]) -> None:
    resolve(spec(dataset=SYNTHETIC, model=BATCH_NORM, training=training))


def test_batch_norm_over_pixels_takes_a_batch_of_one() -> None:
    layers = [{"type": "batch_norm2d"}, {"type": "flatten"}, {"type": "linear", "out_features": 10}]
    resolve(spec(model={"name": "sequential", "layers": layers}, training={"batch_size": 1}))


def test_all_problems_are_named_at_once() -> None:
    found = problems(
        training={"batch_size": 5_000, "steps": 3},
        schedule={"name": "constant", "warmup_steps": 4},
        model={"name": "cnn", "channels": [1, 1, 1, 1]},
    )
    assert [pointer for pointer, _ in found] == ["/training/batch_size", "/schedule/warmup_steps", "/model/channels/3"]


def test_resolved_survives_json() -> None:
    resolved = resolve(spec())
    assert type(resolved).model_validate_json(resolved.model_dump_json()) == resolved
