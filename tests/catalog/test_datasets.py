"""The catalogue's facts about datasets and the hash of their identity; the data itself is tested with the trainer."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from jobs.catalog import datasets, models, optimizers
from jobs.catalog.datasets import facts
from traind.spec import Dataset

DATASET: TypeAdapter[Dataset] = TypeAdapter(Dataset)


def sha256(**parameters: object) -> str:
    return facts(DATASET.validate_python(parameters)).sha256


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "b74bbaaf877ca4991a9f7b35b622be0d63cf85c1c670e35f8043bf3b53c50780"),
        ("fashion_mnist", "d0df6db467df259b357b8d5214ddcd23085a16c24a7a07cd78d053af5a6c1327"),
        ("synthetic_classification", "f6c4fdd2ba5b42f5980b4439b27958a1db13d7fd1cc7a2e5d54cfe3f4a7db9cc"),
        ("synthetic_regression", "7fa4561c8b54cc5df30261de01c9c8c06447e9cd75af97da6971cfcca4b4ff5c"),
    ],
)
def test_the_identity_is_pinned(name: str, expected: str) -> None:
    """A changed hash says that jobs before and after did not see the same numbers: raise the version, knowingly."""
    assert sha256(name=name) == expected


def test_every_parameter_is_part_of_the_identity() -> None:
    variants = [
        {"name": "fashion_mnist"},
        {"name": "fashion_mnist", "train_size": 100},
        {"name": "synthetic_classification"},
        {"name": "synthetic_classification", "seed": 1},
        {"name": "synthetic_classification", "noise": 2.0},
        {"name": "synthetic_classification", "n_classes": 5},
        {"name": "synthetic_regression"},
        {"name": "synthetic_regression", "n_targets": 2},
    ]
    assert len({sha256(**variant) for variant in variants}) == len(variants)


def test_a_default_written_out_is_the_same_dataset() -> None:
    assert sha256(name="fashion_mnist") == sha256(name="fashion_mnist", train_size=60_000)
    assert sha256(name="synthetic_regression") == sha256(name="synthetic_regression", noise=0.1, seed=0)


def test_the_catalogue_describes_itself_with_json_schemas() -> None:
    entries = datasets.describe()
    assert [entry.name for entry in entries] == [
        "digits",
        "fashion_mnist",
        "synthetic_classification",
        "synthetic_regression",
    ]
    assert [entry.name for entry in models.describe()] == ["linear", "mlp", "cnn", "sequential"]
    assert [entry.name for entry in optimizers.describe()] == ["sgd", "adam"]
    train_size = entries[1].parameters["properties"]["train_size"]
    assert (train_size["default"], train_size["maximum"]) == (60_000, 60_000)
    assert entries[1].description.startswith("Fashion-MNIST")


def test_the_catalogue_needs_neither_torch_nor_numpy() -> None:
    """The api judges specs with it."""
    code = "import sys, jobs.catalog; print(sorted({'torch', 'numpy', 'sqlalchemy', 'worker'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
