"""Optimizers side by side: ours by the kernel, ours by the plain rules, torch's; and what one of them has written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core
from optim_core import native
from tests.optim_core.cases import real

# In CI a skip is a failure (tests/skips.py), so that there the kernel must be built.
needs_kernel = pytest.mark.skipif(native.kernel is None, reason="the plain rules were chosen, or there is no compiler")

Bits = dict[str, Tensor]
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def plain(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """One of our optimizers, from now on without the kernel."""
    optimizer._table = None
    return optimizer


def make(who: str, kind: str, params: Any, **options: Any) -> torch.optim.Optimizer:
    """`who` is "native", "plain" or "torch"."""
    module = torch.optim if who == "torch" else optim_core
    optimizer: torch.optim.Optimizer = getattr(module, kind)(params, **options)
    return plain(optimizer) if who == "plain" else optimizer


def bits_of(value: Tensor, *, signed_zero: bool = True) -> Tensor:
    """The elements as integers, all NaNs as one: NaN is NaN, and -0 is not 0 unless told so."""
    flat = real(value.detach()).clone()
    if not flat.is_floating_point():
        return flat
    if not signed_zero:
        flat[flat == 0] = 0
    flat[flat.isnan()] = torch.nan
    return flat.contiguous().view(INTEGERS[flat.element_size()])


def written(optimizer: torch.optim.Optimizer, params: list[Parameter], *, signed_zero: bool = True) -> Bits:
    """The bits of all that a step may write."""
    found = {f"param {index}": bits_of(param, signed_zero=signed_zero) for index, param in enumerate(params)}
    for index, param in enumerate(params):
        for key, value in optimizer.state.get(param, {}).items():
            if isinstance(value, Tensor):
                found[f"param {index} {key}"] = bits_of(value, signed_zero=signed_zero)
    return found


def assert_equal(one: Bits, other: Bits) -> None:
    """Raise AssertionError with the name of the first tensor that differs."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), f"{name} differs"


@contextmanager
def level(name: str) -> Iterator[None]:
    """The kernel at one instruction set."""
    assert native.kernel is not None
    assert native.level is not None
    native.kernel.use(name)
    try:
        yield
    finally:
        native.kernel.use(native.level)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def takes_all(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the kernel would take every parameter that has a gradient."""
    left = optimizer._table.read(optimizer._rule, optimizer.param_groups, optimizer.state, None)
    optimizer._table.forget()
    return left is None
