"""Audit: optim_core beside torch.optim over the first steps of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from optim_core import SGD, Adam
from tests.training.checking import PARTS, audited, result
from tests.training.scenario import Trained, trainer_job
from tests.training.test_resume import GPU
from worker.training.audit import TorchAdam, TorchSgd
from worker.training.data import batches, load_data
from worker.training.messages import Audit, Control, Message, Metrics, Phase, Progress, Ready, Stopped
from worker.training.models import build_model

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01},
    "nesterov": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    "adam": {"name": "adam", "lr": 1e-3},
    "amsgrad, groups": {
        "name": "adam",
        "amsgrad": True,
        "decoupled_weight_decay": True,
        "weight_decay": 0.1,
        "param_groups": [{"params": "*.bias", "lr": 0.01}],
    },
}


@pytest.mark.parametrize("device", GPU)
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ours_is_torchs_but_for_rounding(tmp_path: Path, optimizer: str, clip: float | None, device: str) -> None:
    training = PARTS["training"] | {"grad_clip_norm": clip, "telemetry_every": 1}
    parts = {"optimizer": OPTIMIZERS[optimizer], "training": training, "resources": {"device": device}}
    found = audited(tmp_path, 1, **parts)
    assert found["ended"] == {"optim_core": None, "torch.optim": None}
    names = {tensor["tensor"] for tensor in found["tensors"]}
    assert {"model/1.weight", "model/4.bias"} <= names
    assert ("state/optimizer/4.bias/max_exp_avg_sq" in names) == (optimizer == "amsgrad, groups")
    assert found["n_tensors"] == len(names)
    assert max(t["largest_difference"] for t in found["tensors"]) < 1e-6
    assert found["equal"] == (found["n_different"] == 0) == (found["first_different_step"] is None)


def test_what_it_calls_torch_is_torch(tmp_path: Path) -> None:
    """The second pass against a loop of torch's own parts: what the audit says is apart, is apart from that."""
    spec = trainer_job(tmp_path, **(PARTS | {"model": {"name": "mlp", "hidden": [16]}})).spec
    found = audited(tmp_path, 9, model={"name": "mlp", "hidden": [16]})
    ends = {}
    for kind in (Adam, torch.optim.Adam):
        torch.manual_seed(5)
        torch.set_num_threads(1)
        model = build_model(spec.model, (1, 8, 8), 10)
        data = load_data(spec.dataset, trainer_job(tmp_path).settings, torch.device("cpu"))
        optimizer = kind(model.parameters(), lr=3e-3)
        for _, (inputs, targets) in zip(
            range(9), batches(data, batch_size=60, shuffle=True, seed=5, step=0), strict=False
        ):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        ends[kind] = model.state_dict()
    for tensor in found["tensors"]:
        part, _, name = tensor["tensor"].partition("/")
        if part == "model":
            one, other = (ends[kind][name] for kind in (Adam, torch.optim.Adam))
            assert tensor["n_different"] == int((one != other).sum()), name
            assert tensor["largest_difference"] == (one.double() - other.double()).abs().max().item()


def test_the_default_implementations_of_torch_are_asked() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    for kind, original in ((TorchSgd, torch.optim.SGD), (TorchAdam, torch.optim.Adam)):
        (group,) = kind([parameter], lr=0.1).param_groups
        assert (group["foreach"], group["fused"]) == (None, None)
        assert issubclass(kind, original)
        assert not issubclass(kind, (SGD, Adam))


def test_a_difference_is_found_and_told_by_tensor_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer that adds one ulp to one weight in its third step."""

    class Wrong(TorchSgd):
        steps = 0

        def step(self, closure: Any = None) -> None:
            super().step(closure)
            self.steps += 1
            if self.steps == 3:
                with torch.no_grad():
                    bias = self.param_groups[0]["params"][-1]
                    bias[4] = torch.nextafter(bias[4], torch.tensor(torch.inf))

    monkeypatch.setattr("worker.training.audit.TorchSgd", Wrong)
    found = audited(tmp_path, 3, optimizer={"name": "sgd"}, training=PARTS["training"] | {"batch_size": 60})
    different = [tensor for tensor in found["tensors"] if tensor["n_different"]]
    assert [(t["tensor"], t["n_different"], t["largest_ulp"]) for t in different] == [("model/4.bias", 1, 1)]
    assert 0 < different[0]["largest_difference"] < 1e-6
    assert (found["first_different_step"], found["largest_ulp"], found["equal"]) == (3, 1, False)


def test_passes_that_diverge_together(tmp_path: Path) -> None:
    found = audited(tmp_path, 20, optimizer={"name": "sgd", "lr": 1e18})
    ended = set(found["ended"].values())
    assert len(ended) == 1
    assert "became non-finite in step" in ended.pop()
    assert found["n_tensors"] == 4


def test_passes_that_end_apart_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wild(TorchSgd):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(torch.inf)

    monkeypatch.setattr("worker.training.audit.TorchSgd", Wild)
    found = audited(tmp_path, 20, optimizer={"name": "sgd"})
    assert found["ended"]["optim_core"] is None
    assert "in step 2" in found["ended"]["torch.optim"]
    assert (found["equal"], found["tensors"], found["largest_ulp"]) == (False, [], None)


def test_it_leaves_signs_of_life_and_nothing_else(tmp_path: Path) -> None:
    job = trainer_job(tmp_path / "audit", **PARTS).model_copy(update={"check": Audit(steps=12)})
    run = Trained(job)
    assert result(run)["steps"] == 12
    assert [phase.name for phase in run.all(Phase)] == ["load", "train", "load", "train", "compare"]
    assert (len(run.all(Ready)), run.all(Metrics)) == (1, [])
    assert {1, 13} <= {progress.step for progress in run.all(Progress)}
    assert max(progress.step for progress in run.all(Progress)) <= 24


def test_it_stops_when_asked_to(tmp_path: Path) -> None:
    def stop(message: Message, control: Control) -> None:
        if isinstance(message, Progress) and message.step > 5:
            control.stop = "drain"

    job = trainer_job(tmp_path / "audit", **PARTS).model_copy(update={"check": Audit(steps=5)})
    assert Trained(job, on_message=stop).end == Stopped("drain", 6)
