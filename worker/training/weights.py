"""A file of weights, as a checkpoint's content downloads, back into a model that takes raw values: `traind.load_model`.

The file may be anybody's. Nothing in it is executed; what it says of its model is held against the rules for specs
(`jobs.catalog.architecture`) and against the shapes of its tensors before a byte of these is read, so that memory is
bounded by the size of the file.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from jobs.catalog.architecture import read_architecture
from traind.architecture import Architecture
from traind.errors import ModelUnreadable
from worker.training.errors import CheckpointCorrupt, CheckpointUnreadable
from worker.training.models import modules
from worker.training.tensor_file import DTYPES, read_tensors

MAX_HEADER_BYTES = 4 << 20
"""Far above that of the largest model of a spec: 256 layers with 5 tensors each."""


class TrainedModel(nn.Module):
    """Raw values to outputs: `layers`, an nn.Sequential with the file's names, on what `preprocess` gives.

    `architecture` is the description in the file; `classes` are its names of the classes by index, or None.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.classes = architecture.classes
        self.layers = nn.Sequential(*modules(architecture.layers))
        for name in ("mean", "std"):
            value = torch.tensor(getattr(architecture.preprocessing, name), dtype=torch.float32, device="cpu")
            self.register_buffer(name, value, persistent=False)

    mean: Tensor
    std: Tensor

    def forward(self, values: Any) -> Tensor:
        """Outputs [batch, n_outputs] of raw values: logits of the classes, or the targets of a regression."""
        outputs: Tensor = self.layers(self.preprocess(values))
        return outputs

    def preprocess(self, values: Any) -> Tensor:
        """float32 [batch, *input_shape] of a tensor or array [batch, ...] with as many values a sample, of any dtype.

        Raises ValueError for other shapes.
        """
        tensor = torch.as_tensor(values, device=self.mean.device)
        wanted = self.architecture.input_shape
        try:
            tensor = tensor.to(self.mean.dtype).reshape(len(tensor), *wanted)
        except (RuntimeError, TypeError):
            raise ValueError(
                f"the model takes [batch, {str(wanted)[1:-1].rstrip(',')}], not {list(tensor.shape)}"
            ) from None
        return (tensor - self.mean) / self.std


def load_model(path: str | PathLike[str]) -> TrainedModel:
    """The model in the file, in evaluation mode, on the CPU. Raises ModelUnreadable, or OSError."""
    path = Path(path)
    try:
        _check_kind(path)
        with safe_open(path, framework="pt") as file:
            model = _model(_described(file.metadata() or {}))
            _check_tensors(model, {name: file.get_slice(name) for name in file.keys()})  # noqa: SIM118, no dict
        tensors, _ = read_tensors(path)
    except (SafetensorError, CheckpointCorrupt, CheckpointUnreadable) as error:
        raise ModelUnreadable(f"{path} is damaged, or no safetensors file: {error}") from error
    except ValueError as error:
        raise ModelUnreadable(f"{path}: {error}") from error
    model.layers.load_state_dict(tensors, assign=True)
    return model.eval()


def _check_kind(path: Path) -> None:
    """Before safetensors maps it. Raises ValueError, or OSError."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"it is no file of weights: as safetensors it would have a header of {length:,} bytes")


def _described(metadata: dict[str, str]) -> Architecture:
    """Raises ValueError."""
    if "traind" not in metadata:
        raise ValueError("it is a safetensors file, but not of traind")
    try:
        document = json.loads(metadata["traind"])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its description of the model is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("its description of the model is no JSON object")
    if "fingerprint" in document:
        raise ValueError('it is the state of a checkpoint; the weights are its part "model"')
    if "model" not in document:
        raise ValueError(
            "it was written by an earlier version of traind, which did not describe the model in it; build the layers "
            "by the job's spec, and load them with load_state_dict(safetensors.torch.load_file(path))"
        )
    return read_architecture(document["model"])


def _model(architecture: Architecture) -> TrainedModel:
    """Without memory for its weights, however large they would be."""
    with torch.device("meta"):
        return TrainedModel(architecture)


def _check_tensors(model: TrainedModel, found: dict[str, Any]) -> None:
    """Raises ValueError unless the tensors are the model's own, by name, dtype and shape."""
    wanted = {name: (DTYPES[tensor.dtype], list(tensor.shape)) for name, tensor in model.layers.state_dict().items()}
    if missing := wanted.keys() - found.keys():
        raise ValueError(f"it has no tensor {min(missing)}")
    if unexpected := found.keys() - wanted.keys():
        raise ValueError(f"it has a tensor {min(unexpected)!r:.100}, of which its description knows nothing")
    for name, (dtype, shape) in wanted.items():
        kind = found[name].get_dtype(), found[name].get_shape()
        if kind != (dtype, shape):
            raise ValueError(f"its tensor {name} is {kind[0]} {kind[1]}, but the model's is {dtype} {shape}")
