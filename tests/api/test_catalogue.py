"""The catalogue: what a spec can name, with JSON schemas that accept what the service accepts."""

from __future__ import annotations

from typing import Any

import httpx2
import jsonschema_rs
import pytest

NAMES = {
    "datasets": ["digits", "fashion_mnist", "synthetic_classification", "synthetic_regression"],
    "models": ["linear", "mlp", "cnn", "sequential"],
    "optimizers": ["sgd", "adam"],
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_described(http: httpx2.Client, kind: str) -> None:
    entries = http.get(f"/v1/{kind}").json()[kind]
    assert [entry["name"] for entry in entries] == NAMES[kind]
    assert all(entry["description"] for entry in entries)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("optimizers", {"name": "sgd", "lr": 0.1, "momentum": 0.9}, {"name": "sgd", "lr": -1}),
        ("optimizers", {"name": "adam", "betas": [0.9, 0.99]}, {"name": "adam", "betas": [0.9, 1.0]}),
        ("models", {"name": "sequential", "layers": [{"type": "flatten"}]}, {"name": "sequential", "layers": []}),
        ("datasets", {"name": "synthetic_regression", "n_samples": 10}, {"name": "synthetic_regression", "n": 1}),
    ],
)
def test_the_schemas_tell_good_parameters_from_bad(
    http: httpx2.Client, kind: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    schemas = {entry["name"]: entry["parameters"] for entry in http.get(f"/v1/{kind}").json()[kind]}
    validator = jsonschema_rs.validator_for(schemas[good["name"]])
    assert validator.is_valid(good)
    assert not validator.is_valid(bad)
