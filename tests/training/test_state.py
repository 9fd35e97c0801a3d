"""What a checkpoint holds: exactly the model's names, tied tensors once, and nothing of another model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from optim_core import Adam
from tests.training.scenario import Trained, files, trainer_job
from worker.training import checkpoints as module
from worker.training.checkpoints import Checkpoints
from worker.training.errors import CheckpointCorrupt, CheckpointUnfit, ScratchFull, ScratchUnusable
from worker.training.messages import Checkpoint, CheckpointFiles, Message
from worker.training.models import build_model
from worker.training.state import restore


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4, bias=False)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight


def save(model: nn.Module, folder: Path) -> Checkpoint:
    """A checkpoint after one step of Adam."""
    optimizer = Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    sent: list[Message] = []
    with Checkpoints(model, optimizer, folder, sent.append) as checkpoints:
        checkpoints.save({"step": 1}, step=1, kind="interval", summary={})
    (message,) = sent
    assert isinstance(message, Checkpoint)
    return message


def test_the_model_file_loads_into_the_model_as_it_is(tmp_path: Path) -> None:
    trained = Trained(trainer_job(tmp_path, training={"steps": 3}))
    module = build_model(trainer_job(tmp_path).spec.model, (1, 8, 8), 10)
    module.load_state_dict(load_file(trained.checkpoint(3).model_path))


def test_the_state_file_has_the_optimizers_state_by_parameter(tmp_path: Path) -> None:
    message = save(nn.Linear(2, 3), tmp_path)
    assert set(load_file(message.state_path)) == {
        "rng/cpu",
        *(f"optimizer/{name}/{key}" for name in ("weight", "bias") for key in ("step", "exp_avg", "exp_avg_sq")),
    }


def test_tied_tensors_are_written_once_and_come_back_tied(tmp_path: Path) -> None:
    model = Tied()
    message = save(model, tmp_path)
    assert set(load_file(message.model_path)) == {"encoder.weight", "decoder.bias"}
    other = Tied()
    restore(files(message), other, Adam(other.parameters()))
    assert torch.equal(other.decoder.weight, model.encoder.weight)
    assert other.decoder.weight is other.encoder.weight


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """The files have the values of when it was taken."""
    model = nn.Linear(2, 2)
    optimizer, sent = Adam(model.parameters()), list[Message]()
    with Checkpoints(model, optimizer, tmp_path, sent.append) as checkpoints:
        before = model.weight.detach().clone()
        checkpoints.save({"step": 1}, step=1, kind="interval", summary={})
        with torch.no_grad():
            model.weight.fill_(7)
        checkpoints.save({"step": 2}, step=2, kind="final", summary={})
    first, second = (message for message in sent if isinstance(message, Checkpoint))
    assert torch.equal(load_file(first.model_path)["weight"], before)
    assert torch.equal(load_file(second.model_path)["weight"], torch.full((2, 2), 7.0))


def test_files_of_two_checkpoints_are_not_mixed(tmp_path: Path) -> None:
    one, other = save(nn.Linear(2, 2), tmp_path), save(nn.Linear(2, 2), _folder(tmp_path / "other"))
    mixed = CheckpointFiles(model_path=Path(one.model_path), state_path=Path(other.state_path))
    model = nn.Linear(2, 2)
    with pytest.raises(CheckpointCorrupt, match="not of one checkpoint"):
        restore(mixed, model, Adam(model.parameters()))


def test_memory_that_was_refused_is_no_unfit_checkpoint(tmp_path: Path) -> None:
    message, model = save(nn.Linear(2, 2), tmp_path), nn.Linear(2, 2)

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    model.register_load_state_dict_pre_hook(refuse)
    with pytest.raises(torch.OutOfMemoryError):
        restore(files(message), model, Adam(model.parameters()))


@pytest.mark.parametrize("other", [lambda: nn.Linear(3, 2), lambda: nn.Sequential(nn.Linear(2, 2))])
def test_a_checkpoint_of_another_model_is_refused(other: Callable[[], nn.Module], tmp_path: Path) -> None:
    message, model = save(nn.Linear(2, 2), tmp_path), other()
    with pytest.raises(CheckpointUnfit, match="does not fit this job"):
        restore(files(message), model, Adam(model.parameters()))


def test_without_room_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 1 << 60)
    with pytest.raises(ScratchFull, match="are free") as refused:
        save(nn.Linear(2, 2), tmp_path)
    assert refused.value.retryable
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_full_scratch(tmp_path: Path) -> None:
    """/dev/full takes no byte; the thread's error arrives at the next wait."""
    (tmp_path / "step-1-model.safetensors").symlink_to("/dev/full")
    model = nn.Linear(2, 2)
    with Checkpoints(model, Adam(model.parameters()), tmp_path, _unexpected) as checkpoints:
        checkpoints.save({"step": 1}, step=1, kind="interval", summary={})
        with pytest.raises(ScratchFull, match="did not fit"):
            checkpoints.wait()


@pytest.mark.parametrize("fault", ["EISDIR", "EIO", "ENOENT", "refused"])
def test_whatever_the_folder_does_is_no_fault_of_the_job(fault: str, tmp_path: Path) -> None:
    """A folder in the file's place, a device that takes no byte, a folder swept away, one that cannot be written."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    file = folder / "step-2-model.safetensors"
    model = nn.Linear(2, 2)
    with Checkpoints(model, Adam(model.parameters()), folder, lambda _message: None) as checkpoints:
        checkpoints.save({"step": 1}, step=1, kind="interval", summary={})
        checkpoints.wait()
        match fault:
            case "EISDIR":
                file.mkdir()
            case "EIO":
                file.symlink_to("/proc/self/mem")
            case "ENOENT":
                shutil.rmtree(folder)
            case "refused":
                file.symlink_to("/proc/version")
        with pytest.raises(ScratchUnusable, match="could not be written") as refused:
            _save_whole(checkpoints)
    assert refused.value.retryable


def _save_whole(checkpoints: Checkpoints) -> None:
    checkpoints.save({"step": 2}, step=2, kind="interval", summary={})
    checkpoints.wait()


def _unexpected(message: Message) -> None:
    raise AssertionError(message)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_torn_checkpoint_fails_the_run_with_its_code(tmp_path: Path) -> None:
    trained = Trained(trainer_job(tmp_path / "a", training={"steps": 3}))
    torn = files(trained.checkpoint(3))
    torn.state_path.write_bytes(torn.state_path.read_bytes()[:-1])
    again = Trained(trainer_job(tmp_path / "b", torn, training={"steps": 6}))
    assert getattr(again.end, "code", None) == "checkpoint-corrupt"
