"""What a person is told about a spec that cannot run: a table of (a spec's part, the field, the words)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from traind.errors import InvalidSpec, Problem
from traind.spec import JobSpec

SPEC: dict[str, Any] = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "adam"}}
ADAMS_FIELDS = "lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay and param_groups"
SLUG = "1 to 63 of A-Z, a-z, 0-9, '_', '.' and '-', the first a letter or a digit"
NOT_BLANK = "must be text that is not blank and has no control characters such as newlines"

WORDS = [
    ({"optimiser": {}}, "/optimiser", "a spec has no optimiser; did you mean optimizer?"),
    ({"optimzer": {}}, "/optimzer", "a spec has no optimzer; did you mean optimizer?"),
    ({"lr": 0.1}, "/lr", "a spec has no lr; did you mean optimizer.lr?"),
    ({"learning-rate": 0.1}, "/learning-rate", "a spec has no learning-rate; did you mean optimizer.lr?"),
    ({"epochs": 3}, "/epochs", "a spec has no epochs; did you mean training.epochs?"),
    ({"seed": 3}, "/seed", "a spec has no seed; did you mean training.seed?"),
    ({"patience": 3}, "/patience", "a spec has no patience; did you mean training.early_stopping.patience?"),
    (
        {"extra": 1},
        "/extra",
        "a spec has no extra; its fields are version, name, labels, dataset, model, optimizer, schedule, training, "
        "checkpoints and resources",
    ),
    (
        {"optimizer": {"name": "adam", "momentum": 0.9}},
        "/optimizer/momentum",
        f"adam has no momentum (sgd has); its fields are {ADAMS_FIELDS}",
    ),
    (
        {"optimizer": {"name": "adam", "learning_rate": 1}},
        "/optimizer/learning_rate",
        "adam has no learning_rate; did you mean lr?",
    ),
    ({"optimizer": {"name": "adam", "beta1": 1}}, "/optimizer/beta1", "adam has no beta1; did you mean betas?"),
    ({"optimizer": {"name": "sgd", "nestrov": 1}}, "/optimizer/nestrov", "sgd has no nestrov; did you mean nesterov?"),
    (
        {"optimizer": {"name": "sgd", "batch_size": 1}},
        "/optimizer/batch_size",
        "sgd has no batch_size; did you mean training.batch_size?",
    ),
    (
        {"optimizer": {"name": "sgd", "param_groups": [{"params": "*", "betas": 1}]}},
        "/optimizer/param_groups/0/betas",
        "an item of param_groups has no betas; its fields are params, lr, momentum, dampening, weight_decay, nesterov "
        "and maximize",
    ),
    (
        {"dataset": {"name": "digits", "noise": 1}},
        "/dataset/noise",
        "digits has no noise (synthetic_classification and synthetic_regression have); its only field is name",
    ),
    ({"training": {"bacth_size": 1}}, "/training/bacth_size", "training has no bacth_size; did you mean batch_size?"),
    ({"training": {"lr": 1}}, "/training/lr", "training has no lr; did you mean optimizer.lr?"),
    (
        {"optimizer": {"name": "adamw"}},
        "/optimizer/name",
        "there is no optimizer adamw; adamw is adam with decoupled_weight_decay: true",
    ),
    (
        {"optimizer": {"name": "Adam"}},
        "/optimizer/name",
        "there is no optimizer Adam; did you mean adam? There are sgd and adam",
    ),
    ({"optimizer": {"name": "lion"}}, "/optimizer/name", "there is no optimizer lion; choose sgd or adam"),
    ({"optimizer": {"name": 5}}, "/optimizer/name", "must be a string, not 5; choose sgd or adam"),
    ({"optimizer": {}}, "/optimizer/name", "is missing; choose sgd or adam"),
    ({"optimizer": "adam"}, "/optimizer", 'must be a mapping such as {"name": "adam"}, not the string \'adam\''),
    ({"optimizer": None}, "/optimizer", 'must be a mapping such as {"name": "sgd"}, not null'),
    (
        {"model": {"name": "MLP"}},
        "/model/name",
        "there is no model MLP; did you mean mlp? There are linear, mlp, cnn and sequential",
    ),
    (
        {"dataset": {"name": "cifar10"}},
        "/dataset/name",
        "there is no dataset cifar10; choose digits, fashion_mnist, synthetic_classification or synthetic_regression",
    ),
    (
        {"dataset": {"name": "fashion-mnist"}},
        "/dataset/name",
        "there is no dataset fashion-mnist; did you mean fashion_mnist? There are digits, fashion_mnist, "
        "synthetic_classification and synthetic_regression",
    ),
    (
        {"model": {"name": "sequential", "layers": [{"type": "Linear"}]}},
        "/model/layers/0/type",
        "there is no layer Linear; did you mean linear? There are linear, conv2d, max_pool2d, avg_pool2d, "
        "batch_norm1d, batch_norm2d, layer_norm, flatten, dropout, relu, gelu, tanh, sigmoid, silu and leaky_relu",
    ),
    ({"model": {"name": "mlp", "hidden": 64}}, "/model/hidden", "must be a list, not 64"),
    ({"model": {"name": "mlp", "hidden": [1] * 70}}, "/model/hidden", "must be a list of at most 64, not of 70"),
    (
        {"model": {"name": "mlp", "activation": "relo"}},
        "/model/activation",
        "must be relu, gelu, tanh, sigmoid, silu or leaky_relu, not 'relo'; did you mean relu?",
    ),
    (
        {"optimizer": {"name": "adam", "lr": "1e-3"}},
        "/optimizer/lr",
        "must be a number, not the string '1e-3'; write it without quotes",
    ),
    (
        {"optimizer": {"name": "adam", "lr": None}},
        "/optimizer/lr",
        "must be a number, not null; leave it out for its default",
    ),
    (
        {"optimizer": {"name": "adam", "betas": [0.9]}},
        "/optimizer/betas/1",
        "is missing; betas must have 2 items or more",
    ),
    ({"training": {"epochs": 5.0}}, "/training/epochs", "must be a whole number, not 5.0; write 5"),
    ({"training": {"epochs": True}}, "/training/epochs", "must be a whole number, not true"),
    (
        {"training": {"epochs": 10**30}},
        "/training/epochs",
        "must be at most 1,000,000, not a number of more than 64 bits",
    ),
    ({"training": {"batch_size": 0}}, "/training/batch_size", "must be at least 1 or full, not 0"),
    ({"training": {"shuffle": "yes"}}, "/training/shuffle", "must be true or false, not the string 'yes'"),
    ({"resources": {"device": "gpu"}}, "/resources/device", "must be auto, cpu or cuda, not 'gpu'"),
    ({"resources": {"queue": ""}}, "/resources/queue", f"must be {SLUG}, not ''"),
    ({"labels": {"": "x"}}, "/labels/", f"the name must be {SLUG}, not ''"),
    ({"labels": {" ": "x"}}, "/labels/ ", f"the name must be {SLUG}, not ' '"),
    ({"labels": {"a": 1}}, "/labels/a", "must be a string, not 1"),
    ({"labels": []}, "/labels", "must be a mapping, not a list"),
    ({"name": ""}, "/name", f"{NOT_BLANK}, not ''"),
    ({"name": " \u3000\u00a0"}, "/name", f"{NOT_BLANK}, not ' \\u3000\\xa0'"),
    ({"name": "a\nb"}, "/name", f"{NOT_BLANK}, not 'a\\nb'"),
    ({"name": "x" * 201}, "/name", "must be a string of at most 200 characters, not of 201"),
    ({"version": 2}, "/version", "must be 1, not 2"),
]


def problems(document: Any) -> dict[str, Problem]:
    try:
        JobSpec.model_validate(document)
    except ValidationError as error:
        return {p.pointer: p for p in InvalidSpec.from_validation(error, document).problems}
    return {}


def test_a_bad_name_and_a_bad_value_of_one_field_are_two_problems() -> None:
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate(SPEC | {"labels": {" ": 1}})
    found = InvalidSpec.from_validation(refused.value, SPEC | {"labels": {" ": 1}}).problems
    assert {(p.pointer, p.message.partition(",")[0]) for p in found} == {
        ("/labels/ ", "the name must be 1 to 63 of A-Z"),
        ("/labels/ ", "must be a string"),
    }


@pytest.mark.parametrize(("parts", "pointer", "words"), WORDS, ids=[at for _, at, _ in WORDS])
def test_the_words_name_the_field_and_what_to_do(parts: dict[str, Any], pointer: str, words: str) -> None:
    found = problems(SPEC | parts)
    assert found[pointer].message == words


def test_a_misspelt_field_is_told_before_the_missing_one() -> None:
    found = problems({"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimiser": {"name": "sgd"}})
    assert list(found) == ["/optimiser", "/optimizer"]


@pytest.mark.parametrize("document", [[], None, 5, "optimizer: adam"])
def test_what_is_no_mapping_at_all_is_said_so(document: Any) -> None:
    assert problems(document)[""].message.startswith("must be a mapping of fields, not ")


HOSTILE = [
    "x" * 100_000,
    "\x1b[2J\r\n",
    "\u202eright to left",
    "模型",
    "\ud800",
    "{message}",
    "%s",
    "a" * 41,
    "/~",
    "0",
]


@pytest.mark.parametrize("word", HOSTILE, ids=ascii)
def test_a_hostile_word_anywhere_is_shown_briefly_and_escaped(word: str) -> None:
    for place in ("dataset", "model", "optimizer", "schedule", "training", "resources", "labels", word):
        for value in (word, {word: word}, {"name": word}, [word], {"name": "sgd", "lr": word, word: 1}):
            for problem in problems(SPEC | {place: value}).values():
                assert len(problem.message) < 600
                assert problem.message.isprintable()


def test_a_flood_of_unknown_fields_is_told_briefly_and_guessed_at_only_at_first() -> None:
    document = {f"optimizr{i}": 0 for i in range(20_000)}
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate(document)
    error = InvalidSpec.from_validation(refused.value, document)
    assert len(error.problems) == 20_003
    assert [p.pointer for p in error.problems if "did you mean" in p.message] == [f"/optimizr{i}" for i in range(17)]
    assert len(str(error)) < 10_000
    assert str(error).endswith("; and 19983 more")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(
    {
        name
        for part in json.loads(json.dumps(JobSpec.model_json_schema()))["$defs"].values()
        for name in part.get("properties", {})
    }
)


@given(
    st.sampled_from(
        ["dataset", "model", "optimizer", "schedule", "training", "resources", "checkpoints", "labels", "name"]
    ),
    JSON
    | st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["sgd", "adam", "cnn", "sequential", "step"])),
)
def test_nothing_is_told_in_the_words_of_the_library(part: str, value: Any) -> None:
    for problem in problems(SPEC | {part: value}).values():
        assert not any(words in problem.message for words in ("Input", "Extra", "valid ", "required", "should"))
        assert problem.message.isprintable()
