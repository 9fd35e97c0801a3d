"""The spec: torch's defaults and rules, and a pointer for whatever cannot be."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from traind.errors import InvalidSpec
from traind.spec import Adam, AdamGroup, JobSpec, Sgd, SgdGroup

MINIMAL: dict[str, Any] = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "adam"}}


def problems(document: Any) -> list[tuple[str, str]]:
    """(pointer, message) of everything that is wrong with a document, as a client gets it."""
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate_json(json.dumps(document))
    found = InvalidSpec.from_validation(refused.value, document).problems
    return [(problem.pointer, problem.message) for problem in found]


def with_part(part: str, value: Any) -> dict[str, Any]:
    return MINIMAL | {part: value}


def test_a_minimal_spec_has_every_default() -> None:
    spec = JobSpec.model_validate(MINIMAL)
    assert spec.training.epochs == 10
    assert spec.training.batch_size == 32
    assert spec.training.telemetry_every is None
    assert spec.schedule.name == "constant"
    assert (spec.resources.queue, spec.resources.device, spec.resources.max_attempts) == ("default", "auto", 3)
    assert spec.version == 1


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Sgd(name="sgd"), torch.optim.SGD), (Adam(name="adam"), torch.optim.Adam)], ids=["sgd", "adam"]
)
def test_the_optimizers_defaults_are_torchs(ours: Sgd | Adam, theirs: type) -> None:
    defaults = {name: p.default for name, p in inspect.signature(theirs).parameters.items()}
    for name, value in ours.model_dump(exclude={"name", "param_groups"}).items():
        assert defaults[name] == value, name


@pytest.mark.parametrize(("optimizer", "group"), [(Sgd, SgdGroup), (Adam, AdamGroup)])
def test_a_group_may_override_every_option(optimizer: type[Sgd | Adam], group: type[SgdGroup | AdamGroup]) -> None:
    assert set(group.model_fields) - {"params"} == set(optimizer.model_fields) - {"name", "param_groups"}


def test_the_queue_follows_the_device() -> None:
    assert JobSpec.model_validate(with_part("resources", {"device": "cuda"})).resources.queue == "cuda"
    named = with_part("resources", {"device": "cuda", "queue": "big"})
    assert JobSpec.model_validate(named).resources.queue == "big"


@pytest.mark.parametrize("keep", [0, -1, 1.5, "2", True, 10_001, 10**30, [2]])
def test_keep_last_refuses(keep: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate(with_part("checkpoints", {"keep_last": keep}))
    assert refused.value.errors()[0]["loc"] == ("checkpoints", "keep_last")


def test_two_interval_checkpoints_are_kept_unless_said_otherwise() -> None:
    assert JobSpec.model_validate(with_part("checkpoints", {})).checkpoints.keep_last == 2
    assert JobSpec.model_validate(with_part("checkpoints", {"keep_last": None})).checkpoints.keep_last is None


def test_a_spec_is_frozen() -> None:
    spec = JobSpec.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


def test_json_there_and_back() -> None:
    spec = JobSpec.model_validate(
        {
            "name": "a name",
            "labels": {"team": "vision"},
            "dataset": {"name": "synthetic_regression", "noise": 0.5},
            "model": {"name": "sequential", "layers": [{"type": "linear", "out_features": 1}]},
            "optimizer": {"name": "sgd", "momentum": 0.9, "param_groups": [{"params": "*.bias", "lr": 0.0}]},
            "schedule": {"name": "step", "step_size": 3},
            "training": {"steps": 5, "batch_size": "full", "telemetry_every": 2, "early_stopping": {"patience": 2}},
            "resources": {"priority": -3, "max_runtime_seconds": 60},
        }
    )
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("document", "pointer", "words"),
    [
        ([], "", "must be a mapping of fields, not a list"),
        ({}, "/dataset", "is missing"),
        (with_part("datset", {}), "/datset", "did you mean dataset?"),
        (with_part("dataset", {"name": "mnist"}), "/dataset/name", "digits"),
        (with_part("dataset", {}), "/dataset/name", "is missing"),
        (with_part("dataset", {"name": "digits", "split": 1}), "/dataset/split", "digits has no split"),
        (with_part("dataset", {"name": "fashion_mnist", "train_size": 0}), "/dataset/train_size", "at least 1"),
        (
            with_part("dataset", {"name": "synthetic_classification", "n_samples": 10, "n_classes": 11}),
            "/dataset/n_classes",
            "must not exceed n_samples (10)",
        ),
        (
            with_part("dataset", {"name": "synthetic_classification", "n_samples": 10**6, "n_features": 201}),
            "/dataset/n_features",
            "at most 200,000,000",
        ),
        (
            with_part(
                "dataset", {"name": "synthetic_regression", "n_samples": 10**6, "n_features": 200, "n_targets": 51}
            ),
            "/dataset/n_targets",
            "at most 10,000,000,000",
        ),
        (with_part("model", {"name": "mlp", "hidden": [0]}), "/model/hidden/0", "at least 1"),
        (with_part("model", {"name": "mlp", "hidden": [1] * 65}), "/model/hidden", "at most 64"),
        (with_part("model", {"name": "mlp", "dropout": 1.0}), "/model/dropout", "less than 1"),
        (with_part("model", {"name": "mlp", "activation": "swish"}), "/model/activation", "relu"),
        (with_part("model", {"name": "sequential", "layers": []}), "/model/layers", "at least 1"),
        (
            with_part("model", {"name": "sequential", "layers": [{"type": "conv2d", "out_channels": 1}]}),
            "/model/layers/0/kernel_size",
            "is missing",
        ),
        (with_part("optimizer", {"name": "sgd", "lr": -0.1}), "/optimizer/lr", "Invalid learning rate"),
        (
            with_part("optimizer", {"name": "adam", "lr": 1e19}),
            "/optimizer/lr",
            "at most 1e+18",
        ),
        (with_part("optimizer", {"name": "sgd", "dampening": -1e39}), "/optimizer/dampening", "at least -1e+18"),
        (with_part("optimizer", {"name": "sgd", "lr": "0.1"}), "/optimizer/lr", "must be a number"),
        (
            with_part("optimizer", {"name": "sgd", "betas": [0.9, 0.99]}),
            "/optimizer/betas",
            "sgd has no betas (adam has)",
        ),
        (
            with_part("optimizer", {"name": "adam", "betas": [0.9, 1.0]}),
            "/optimizer/betas/1",
            "Invalid beta parameter at index 1",
        ),
        (with_part("optimizer", {"name": "adam", "betas": [0.9]}), "/optimizer/betas/1", "is missing"),
        (
            with_part("optimizer", {"name": "sgd", "nesterov": True}),
            "/optimizer/nesterov",
            "Nesterov momentum requires a momentum and zero dampening",
        ),
        (
            with_part("optimizer", {"name": "sgd", "nesterov": True, "momentum": 0.9, "dampening": 0.1}),
            "/optimizer/nesterov",
            "Nesterov momentum requires a momentum and zero dampening",
        ),
        (
            with_part("optimizer", {"name": "sgd", "param_groups": [{"params": "*", "nesterov": True}]}),
            "/optimizer/param_groups/0/nesterov",
            "Nesterov momentum requires a momentum and zero dampening",
        ),
        (
            with_part("optimizer", {"name": "sgd", "param_groups": [{"params": ""}]}),
            "/optimizer/param_groups/0/params",
            "at least 1",
        ),
        (with_part("schedule", {"name": "step"}), "/schedule/step_size", "is missing"),
        (with_part("schedule", {"name": "cosine", "warmup_steps": -1}), "/schedule/warmup_steps", "at least 0"),
        (with_part("training", {"epochs": 1, "steps": 1}), "/training/steps", "give epochs or steps, not both"),
        (with_part("training", {"epochs": 1.5}), "/training/epochs", "must be a whole number"),
        (with_part("training", {"epochs": True}), "/training/epochs", "must be a whole number"),
        (with_part("training", {"steps": 2**31}), "/training/steps", "at most 2,147,483,647"),
        (with_part("training", {"seed": 10**400}), "/training/seed", ""),
        (with_part("training", {"grad_clip_norm": 0}), "/training/grad_clip_norm", "greater than 0"),
        (with_part("training", {"telemetry_every": 0}), "/training/telemetry_every", "at least 1"),
        (with_part("training", {"telemetry_every": -1}), "/training/telemetry_every", "at least 1"),
        (with_part("training", {"telemetry_every": True}), "/training/telemetry_every", "must be a whole number"),
        (with_part("training", {"telemetry_every": "10"}), "/training/telemetry_every", "must be a whole number"),
        (with_part("training", {"telemetry_every": 10.0}), "/training/telemetry_every", "must be a whole number"),
        (with_part("training", {"telemetry_every": 2**31}), "/training/telemetry_every", "at most"),
        (with_part("training", {"telemetry_every": 10**400}), "/training/telemetry_every", ""),
        (with_part("training", {"telemetry_every": [1]}), "/training/telemetry_every", "must be a whole number"),
        (with_part("training", {"divergence": {}}), "/training/divergence", "give loss_factor, update_norm_factor"),
        (with_part("training", {"divergence": {"patience_steps": 3}}), "/training/divergence", "or both"),
        (
            with_part("training", {"divergence": {"loss_factor": 1}}),
            "/training/divergence/loss_factor",
            "greater than 1",
        ),
        (
            with_part("training", {"divergence": {"loss_factor": "3"}}),
            "/training/divergence/loss_factor",
            "must be a number",
        ),
        (
            with_part("training", {"divergence": {"loss_factor": 1e19}}),
            "/training/divergence/loss_factor",
            "at most 1e+18",
        ),
        (
            with_part("training", {"divergence": {"update_norm_factor": -2}}),
            "/training/divergence/update_norm_factor",
            "greater than 1",
        ),
        (
            with_part("training", {"divergence": {"loss_factor": 2, "patience_steps": 0}}),
            "/training/divergence/patience_steps",
            "at least 1",
        ),
        (with_part("training", {"divergence": {"loss": 2}}), "/training/divergence/loss", "did you mean loss_factor?"),
        (with_part("training", {"divergence": [2]}), "/training/divergence", "must be a mapping of fields"),
        (with_part("training", {"shuffle": 1}), "/training/shuffle", "true or false, not 1"),
        (with_part("resources", {"priority": 101}), "/resources/priority", "at most 100"),
        (with_part("resources", {"queue": "a b"}), "/resources/queue", "1 to 63 of"),
        (with_part("name", "a\x00b"), "/name", "control characters"),
        (with_part("labels", {"k": "a\nb"}), "/labels/k", "control characters"),
        (with_part("labels", {"a/b": "v"}), "/labels/a~1b", "the name must be 1 to 63 of"),
        (with_part("version", 2), "/version", "must be 1, not 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_with_its_field(document: Any, pointer: str, words: str) -> None:
    found = problems(document)
    assert pointer in [at for at, _ in found], found
    assert any(words in message for at, message in found if at == pointer), found


@given(st.sampled_from([float("nan"), float("inf"), float("-inf")]), st.sampled_from(["lr", "weight_decay", "eps"]))
def test_non_finite_numbers_are_refused(value: float, field: str) -> None:
    assert [at for at, _ in problems(with_part("optimizer", {"name": "adam", field: value}))] == [f"/optimizer/{field}"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_a_spec_or_a_problem_with_a_pointer(document: Any) -> None:
    for part in ("dataset", "model", "optimizer", "schedule", "training", "resources", "labels"):
        pointers = [at for at, _ in _problems_or_none(with_part(part, document))]
        assert all(at == f"/{part}" or at.startswith(f"/{part}/") for at in pointers)


def _problems_or_none(document: Any) -> list[tuple[str, str]]:
    try:
        JobSpec.model_validate(document)
    except ValidationError as error:
        return [(p.pointer, p.message) for p in InvalidSpec.from_validation(error, document).problems]
    return []


def test_batch_size_names_both_ways_to_give_it() -> None:
    ((pointer, message),) = problems(with_part("training", {"batch_size": "all"}))
    assert pointer == "/training/batch_size"
    assert message == "must be a whole number or full, not the string 'all'"
