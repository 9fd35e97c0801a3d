"""The peer of `bench.overhead`: what a person would write without traind, in plain PyTorch.

    python -m bench.scripts SPEC.json dataloader|preloaded

Trains the spec's model on the spec's data for the spec's epochs with torch.optim, keeps the loss of every step,
evaluates once an epoch and saves model and optimizer at the end. Prints the seconds from the first batch to there.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from jobs.catalog import resolve
from jobs.settings import Settings
from traind.spec import Adam, JobSpec, Resolved
from worker.training.data import Data, load_data
from worker.training.messages import DataSettings
from worker.training.models import build_model

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


def main() -> None:
    path, variant = sys.argv[1:]
    spec = JobSpec.model_validate(json.loads(Path(path).read_text()))
    resolved = resolve(spec)
    torch.set_num_threads(spec.training.threads or 1)
    torch.manual_seed(spec.training.seed)
    folders = DataSettings.model_validate(Settings().model_dump(include=set(DataSettings.model_fields)))
    data = load_data(spec.dataset, folders, torch.device("cpu"))
    train, validation = (with_dataloader if variant == "dataloader" else preloaded)(data, resolved.batch_size)
    print(run(spec, resolved, train, validation))


def with_dataloader(data: Data, batch_size: int) -> tuple[Batches, Batches]:
    """TensorDataset and DataLoader, num_workers=0: the tutorial's way."""
    train = TensorDataset(data.train_inputs, data.train_targets)
    validation = TensorDataset(data.validation_inputs, data.validation_targets)
    shuffled = DataLoader(train, batch_size=batch_size, shuffle=True, num_workers=0)
    ordered = DataLoader(validation, batch_size=1_024, num_workers=0)
    return lambda: iter(shuffled), lambda: iter(ordered)


def preloaded(data: Data, batch_size: int) -> tuple[Batches, Batches]:
    """The tensors themselves, indexed by a permutation: what one writes when the tutorial's way is too slow."""

    def train() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(data.train_targets)).split(batch_size):  # type: ignore[no-untyped-call]
            yield data.train_inputs[rows], data.train_targets[rows]

    def validation() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(data.validation_targets), 1_024):
            yield data.validation_inputs[start : start + 1_024], data.validation_targets[start : start + 1_024]

    return train, validation


def run(spec: JobSpec, resolved: Resolved, train: Batches, validation: Batches) -> float:
    """Seconds from the first batch to the saved file."""
    assert isinstance(spec.optimizer, Adam), "the benchmark's specs use Adam"
    assert spec.training.epochs is not None, "the benchmark's specs count epochs"
    model = build_model(spec.model, resolved.input_shape, resolved.n_outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.optimizer.lr)
    loss_function = nn.CrossEntropyLoss()
    losses: list[float] = []
    began = time.perf_counter()
    for _ in range(spec.training.epochs):
        model.train()
        for inputs, targets in train():
            optimizer.zero_grad()
            loss = loss_function(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        evaluate(model, loss_function, validation)
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / "last.pt")
    return time.perf_counter() - began


@torch.no_grad()
def evaluate(model: nn.Module, loss_function: nn.Module, validation: Batches) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    total, correct, n = 0.0, 0, 0
    for inputs, targets in validation():
        outputs = model(inputs)
        total += loss_function(outputs, targets).item() * len(targets)
        correct += int((outputs.argmax(1) == targets).sum())
        n += len(targets)
    return total / n, correct / n


if __name__ == "__main__":
    main()
