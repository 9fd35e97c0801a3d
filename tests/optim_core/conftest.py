"""torch's optimizers with a correctly rounded root: what Adam's bits are compared with."""

import pytest
import torch

from optim_core.rules import ieee_sqrt


@pytest.fixture
def ieee_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give `Tensor.sqrt`, by which torch's Adam takes its root, the rounding of IEEE 754."""
    monkeypatch.setattr(torch.Tensor, "sqrt", ieee_sqrt)
