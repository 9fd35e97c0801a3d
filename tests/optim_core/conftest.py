"""torch's optimizers with a correctly rounded root: what Adam's bits are compared with."""

import os

import pytest
import torch

from optim_core import native
from optim_core.rules import ieee_sqrt
from tests.optim_core import sample


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sample.VARIABLE in os.environ:
        sample.draw(items)


@pytest.fixture
def ieee_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ours is the native kernel, give `Tensor.sqrt`, torch's Adam's root, the rounding of IEEE 754.

    Without the kernel ours takes torch's root, and all bits are torch's.
    """
    if native.kernel is not None:
        monkeypatch.setattr(torch.Tensor, "sqrt", ieee_sqrt)
