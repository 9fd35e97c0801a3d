"""The estimate of a trainer's memory: what it counts, and the limit. Real trainers: tests/training/test_memory.py."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.catalog import resolve
from jobs.catalog.memory import BASE_BYTES, BLOCK_BYTES, SLACK, estimate, refuse_above
from traind.errors import InvalidSpec
from traind.spec import JobSpec, Resolved
from worker.training import data, evaluate
from worker.training.datasets import synthetic

WIDE = {"name": "mlp", "hidden": [1024, 1024]}
BILLION = 10**9


def spec(**parts: Any) -> JobSpec:
    base = {"dataset": {"name": "digits"}, "model": WIDE, "optimizer": {"name": "sgd"}}
    return JobSpec.model_validate(base | parts)


def estimated(**parts: Any) -> int:
    found = resolve(spec(**parts)).memory_bytes
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [
        ({"name": "sgd"}, 3),
        ({"name": "sgd", "momentum": 0.9}, 5),
        ({"name": "adam"}, 7),
        ({"name": "adam", "amsgrad": True}, 9),
    ],
)
def test_parameters_gradients_state_and_the_checkpoints_copy(optimizer: dict[str, Any], copies: int) -> None:
    job = spec(optimizer=optimizer)
    resolved = resolve(job)
    assert estimate(job, resolved).model == copies * 4 * resolved.n_parameters


def test_the_state_of_a_param_group_is_counted_for_its_parameters_only() -> None:
    groups = [{"params": "1.weight", "momentum": 0.9}]
    more = estimated(optimizer={"name": "sgd", "param_groups": groups}) - estimated()
    assert more == 2 * 4 * 64 * 1024


def test_a_rule_about_updates_costs_a_copy_of_the_parameters() -> None:
    more = estimated(training={"divergence": {"update_norm_factor": 10}}) - estimated()
    assert more == 4 * resolve(spec()).n_parameters
    assert estimated(training={"divergence": {"loss_factor": 10}}) == estimated()


def test_a_larger_batch_model_or_dataset_needs_more() -> None:
    assert estimated(training={"batch_size": "full"}) > estimated() > BASE_BYTES
    small, large = ({"name": "synthetic_regression", "n_samples": n} for n in (1_000, 1_000_000))
    assert estimated(dataset=large) > estimated(dataset=small) + 4 * 20 * 999_000


def test_dropout_keeps_its_output_and_its_mask() -> None:
    full: dict[str, Any] = {"training": {"batch_size": "full"}}
    more = estimated(model=WIDE | {"dropout": 0.5}, **full) - estimated(**full)
    values = 2 * (1024 + 1024) * resolve(spec()).n_train
    assert more == pytest.approx(SLACK * 4 * values, abs=1)


def test_a_job_for_a_gpu_has_no_estimate_and_is_not_refused() -> None:
    job = spec(resources={"device": "cuda"})
    resolved = resolve(job)
    assert resolved.memory_bytes is None
    refuse_above(1, job, resolved)


def test_what_an_earlier_release_resolved_can_be_read() -> None:
    document = resolve(spec()).model_dump(mode="json")
    del document["memory_bytes"]
    assert Resolved.model_validate(document).memory_bytes is None


def test_the_constants_are_those_of_the_trainer() -> None:
    """The catalogue imports no torch, so it cannot take them from there."""
    from jobs.catalog import memory

    assert memory.EVALUATION_BATCH == evaluate.EVALUATION_BATCH
    assert data.BLOCK_BYTES == BLOCK_BYTES
    assert memory.STATISTICS_ROWS == synthetic.CHUNK_ROWS


@pytest.mark.parametrize(
    ("parts", "pointer"),
    [
        ({"model": {"name": "mlp", "hidden": [16_384, 16_384]}}, "/model"),
        ({"dataset": {"name": "synthetic_regression", "n_samples": 1_000_000, "n_features": 200}}, "/dataset"),
        (
            {
                "dataset": {"name": "synthetic_regression", "n_samples": 1_000_000},
                "model": {"name": "mlp", "hidden": [1_000]},
                "training": {"batch_size": "full"},
            },
            "/training/batch_size",
        ),
    ],
)
def test_above_the_limit_it_is_refused_with_what_takes_the_most(parts: dict[str, Any], pointer: str) -> None:
    job = spec(**parts)
    resolved = resolve(job)
    with pytest.raises(InvalidSpec) as refused:
        refuse_above(BILLION, job, resolved)
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.code) == (pointer, "memory")
    assert "1.00 GB (TRAIND_MAX_JOB_MEMORY_BYTES)" in problem.message
    assert resolved.memory_bytes is not None
    refuse_above(resolved.memory_bytes, job, resolved)
    refuse_above(None, job, resolved)


def test_the_largest_spec_there_can_be_is_a_number_that_postgres_holds() -> None:
    layers = [{"type": "conv2d", "out_channels": 1_000, "kernel_size": 1, "padding": 64}, {"type": "flatten"}]
    wide = [{"type": "dropout"}] * 250
    model = {"name": "sequential", "layers": [*layers[:1], *wide, layers[1], {"type": "linear", "out_features": 10}]}
    needed = estimated(dataset={"name": "fashion_mnist"}, model=model, training={"batch_size": "full"})
    assert 10**15 < needed < 2**63
