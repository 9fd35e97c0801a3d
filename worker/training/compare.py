"""Two sets of tensors, or two documents, compared to the bit; and in units in the last place (ulp).

Elements are equal where their bits are: NaN equals the same NaN, and 0.0 is not -0.0. Called by `verify` and `audit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from worker.training.state import Tensors

MAX_TEXT = 200
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Difference:
    """How one tensor differs from its twin."""

    n_elements: int
    n_different: int
    first: int
    """The first different element, in row-major order."""
    values: tuple[float | None, float | None]
    """Of that element; None for what is not a finite number."""
    largest: float | None
    """Largest absolute difference; None where it is not a finite number."""


def difference(one: Tensor, other: Tensor) -> Difference | None:
    """How `other` differs from `one`, which has its shape and dtype; None where all bits are equal."""
    one, other = flat(one), flat(other)
    different = _words(one) != _words(other)
    n_different = int(torch.count_nonzero(different).item())
    if n_different == 0:
        return None
    first = int(different.int().argmax().item())
    values = one[first].item(), other[first].item()
    distance = (one[different].double() - other[different].double()).abs().max().item()
    return Difference(one.numel(), n_different, first, (_finite(values[0]), _finite(values[1])), _finite(distance))


def largest_ulp(one: Tensor, other: Tensor) -> int | None:
    """How many representable numbers two elements are apart, at most; None where one of two is NaN.

    0.0 and -0.0 are the same. For integers it is their difference.
    """
    one, other = flat(one), flat(other)
    if one.numel() == 0:
        return 0
    if bool((one.isnan() != other.isnan()).any()):
        return None
    distance = (_ordered(one) - _ordered(other)).abs()
    return int(distance.masked_fill(one.isnan(), 0).max().item())


def flat(tensor: Tensor) -> Tensor:
    """Its elements in row-major order, on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1)


def same_kind(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def pairs(one: Tensors, other: Tensors) -> Iterator[tuple[str, Tensor | None, Tensor | None]]:
    """(name, tensor, twin) for every name, those of `other` first, in its order; None where there is none."""
    for name in dict.fromkeys((*other, *one)):
        yield name, one.get(name), other.get(name)


def document_differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two JSON documents differ, as a person reads it: "path: stored 1, replayed 2". NaN equals NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from document_differences(one.get(key), other.get(key), f"{path}/{key}" if path else key)
    elif one != other and not (one != one and other != other):  # noqa: PLR0124, NaN
        yield f"{path}: stored {one!r:.{MAX_TEXT}}, replayed {other!r:.{MAX_TEXT}}"


def _words(tensor: Tensor) -> Tensor:
    """The elements' bits as integers of the same size."""
    return tensor.view(_WORDS[tensor.element_size()])


def _ordered(tensor: Tensor) -> Tensor:
    """int64 with the elements' order, one apart for neighbours."""
    words = _words(tensor).long()
    if not tensor.is_floating_point():
        return tensor.long()
    lowest = -(2 ** (8 * tensor.element_size() - 1))
    return torch.where(words < 0, lowest - words, words)


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None
