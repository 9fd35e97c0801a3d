"""What torch refuses, the spec refuses at the field, and in torch's words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from traind.errors import InvalidSpec
from traind.spec import JobSpec

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("sgd", "/optimizer/lr", {"lr": -0.1}),
    ("sgd", "/optimizer/momentum", {"momentum": -0.5}),
    ("sgd", "/optimizer/weight_decay", {"weight_decay": -1.0}),
    ("sgd", "/optimizer/nesterov", {"nesterov": True}),
    ("sgd", "/optimizer/nesterov", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("adam", "/optimizer/lr", {"lr": -0.1}),
    ("adam", "/optimizer/eps", {"eps": -1e-8}),
    ("adam", "/optimizer/weight_decay", {"weight_decay": -1.0}),
    ("adam", "/optimizer/betas/0", {"betas": (1.0, 0.9)}),
    ("adam", "/optimizer/betas/0", {"betas": (-0.1, 0.9)}),
    ("adam", "/optimizer/betas/1", {"betas": (0.9, 1.0)}),
]


@pytest.mark.parametrize(("name", "pointer", "options"), REFUSED, ids=str)
def test_the_reason_is_torchs_own(name: str, pointer: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as torchs:  # noqa: PT011  its text is what is compared
        OPTIMIZERS[name]([torch.zeros(1, requires_grad=True)], **options)
    assert problems(name, options) == {pointer: str(torchs.value)}


def test_a_param_group_is_refused_with_the_same_reason() -> None:
    found = problems("sgd", {"param_groups": [{"params": "*", "lr": -2.0}]})
    assert found == {"/optimizer/param_groups/0/lr": "Invalid learning rate: -2.0"}


def problems(name: str, options: dict[str, Any]) -> dict[str, str]:
    document = {"dataset": {"name": "digits"}, "model": {"name": "linear"}, "optimizer": {"name": name, **options}}
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate(document)
    return {p.pointer: p.message for p in InvalidSpec.from_validation(refused.value, document).problems}
