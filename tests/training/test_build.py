"""From the spec's parts to torch's: weights as plain torch draws them, options where torch keeps them."""

from __future__ import annotations

import torch
from torch import nn

import optim_core
from traind.spec import Adam, AdamGroup, Linear, Mlp, Sgd
from worker.training.models import build_model
from worker.training.optimizer import build_optimizer


def test_a_plain_torch_script_gets_the_same_initial_weights() -> None:
    torch.manual_seed(3)
    ours = build_model(Mlp(name="mlp", hidden=(5,), dropout=0.1), (1, 8, 8), 10)
    torch.manual_seed(3)
    theirs = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 10))
    assert str(ours) == str(theirs)
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_sgd_with_its_options() -> None:
    model = build_model(Linear(name="linear"), (3,), 2)
    optimizer = build_optimizer(Sgd(name="sgd", lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.1), model)
    assert isinstance(optimizer, optim_core.SGD)
    (group,) = optimizer.param_groups
    assert group["params"] == list(model.parameters())
    asked = {"lr": 0.2, "initial_lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "metric_suffix": ""}
    assert asked.items() <= group.items()


def test_adam_with_groups() -> None:
    model = build_model(Linear(name="linear"), (3,), 2)
    groups = (AdamGroup(params="*.bias", lr=0.5, betas=(0.1, 0.2)),)
    spec = Adam(name="adam", weight_decay=0.1, decoupled_weight_decay=True, param_groups=groups)
    optimizer = build_optimizer(spec, model)
    assert isinstance(optimizer, optim_core.Adam)
    default, biases = optimizer.param_groups
    assert [p.shape for p in default["params"]] == [(2, 3)]
    assert [p.shape for p in biases["params"]] == [(2,)]
    assert (default["lr"], default["betas"], default["metric_suffix"]) == (1e-3, (0.9, 0.999), "")
    assert (biases["lr"], biases["betas"], biases["metric_suffix"]) == (0.5, (0.1, 0.2), "/1")
    assert default["decoupled_weight_decay"] is biases["decoupled_weight_decay"] is True
