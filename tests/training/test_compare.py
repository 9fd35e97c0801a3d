"""Comparing tensors to the bit, and in units in the last place."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.training.compare import difference, document_differences, largest_ulp, pairs

FLOATS = st.floats(width=32, allow_nan=False)
INF = torch.tensor(math.inf)


def f32(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize(
    ("one", "other", "n_different"),
    [
        (f32(1, 2), f32(1, 2), 0),
        (f32(math.nan), f32(math.nan), 0),
        (f32(0.0), f32(-0.0), 1),
        (f32(1, math.inf), f32(1, -math.inf), 1),
        (f32(), f32(), 0),
        (torch.tensor([True, False]), torch.tensor([True, True]), 1),
        (torch.tensor(3), torch.tensor(4), 1),
        (torch.arange(4, dtype=torch.uint8), torch.arange(4, dtype=torch.uint8), 0),
        (torch.ones(2, 2).half().t(), torch.ones(2, 2).half(), 0),
        (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16), 2),
    ],
)
def test_bits_decide(one: torch.Tensor, other: torch.Tensor, n_different: int) -> None:
    found = difference(one, other)
    assert (0 if found is None else found.n_different) == n_different


def test_the_first_and_the_largest() -> None:
    found = difference(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.5], [3.0, -4.0]]))
    assert found is not None
    assert (found.first, found.values, found.largest) == (1, (2.0, 2.5), 8.0)


def test_transposed_memory_is_compared_by_elements() -> None:
    a = torch.arange(6.0).reshape(2, 3)
    assert difference(a.t().contiguous().t(), a) is None


@given(FLOATS)
def test_a_neighbour_is_one_apart(value: float) -> None:
    one = f32(value)
    other = torch.nextafter(one, INF)
    assert largest_ulp(one, one) == 0
    assert largest_ulp(one, other) == largest_ulp(other, one) == (0 if bool(one == INF) else 1)


@given(FLOATS, FLOATS, FLOATS)
def test_distances_add_up(a: float, b: float, c: float) -> None:
    low, middle, high = map(f32, sorted((a, b, c)))
    parts = largest_ulp(low, middle), largest_ulp(middle, high)
    assert None not in parts
    assert largest_ulp(low, high) == sum(filter(None, parts))


@pytest.mark.parametrize(
    ("one", "other", "ulp"),
    [
        (f32(0.0), f32(-0.0), 0),
        (f32(1.0), f32(2.0), 2**23),
        (f32(math.nan), f32(math.nan), 0),
        (f32(math.nan, 1.0), f32(1.0, 1.0), None),
        (f32(3.4028234663852886e38), f32(math.inf), 1),
        (f32(-1e-45), f32(1e-45), 2),
        (f32(), f32(), 0),
        (torch.tensor([1.0]).double(), torch.nextafter(torch.tensor([1.0]).double(), torch.tensor(2.0).double()), 1),
        (torch.tensor([1, 5]), torch.tensor([1, 8]), 3),
        (torch.tensor([1.0]).half(), torch.tensor([1.001]).half(), 1),
    ],
)
def test_units_in_the_last_place(one: torch.Tensor, other: torch.Tensor, ulp: int | None) -> None:
    assert largest_ulp(one, other) == ulp


def test_pairs_have_every_name() -> None:
    one, other = {"a": f32(1), "x": f32(1)}, {"b": f32(1), "a": f32(1)}
    assert [(name, a is None, b is None) for name, a, b in pairs(one, other)] == [
        ("b", True, False),
        ("a", False, False),
        ("x", False, True),
    ]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 2]}}, []),
        ({"a": math.nan}, {"a": math.nan}, []),
        ({"a": {"b": 1}}, {"a": {}}, ["a/b: stored 1, replayed None"]),
        ({"a": {"b": 1}}, {"a": 2}, ["a: stored {'b': 1}, replayed 2"]),
        ({"z": 1, "a": "x"}, {"z": 2, "a": "y"}, ["a: stored 'x', replayed 'y'", "z: stored 1, replayed 2"]),
    ],
)
def test_documents(one: Any, other: Any, expected: list[str]) -> None:
    assert list(document_differences(one, other)) == expected


def test_a_long_value_is_cut() -> None:
    (line,) = document_differences({"a": "x" * 10_000}, {"a": "y"})
    assert len(line) < 500
