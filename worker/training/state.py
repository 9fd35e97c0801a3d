"""What a checkpoint holds, and how it gets back into model and optimizer.

Two files. `model` has the tensors of `model.state_dict()` under exactly their names; of tied ones the first only, with
`aliases` in its document, and `model`, what one needs to use them (`traind.architecture`). `state` has all else that
the next step depends on: optimizer state as "optimizer/<parameter>/<key>", random generators as "rng/<device>", and a
document with step, open metric windows, early stopping and fingerprint. The order of batches and the learning rate
follow from the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from worker.training.errors import CheckpointCorrupt, CheckpointUnfit
from worker.training.messages import CheckpointFiles
from worker.training.tensor_file import read_tensors

Tensors = dict[str, Tensor]
Document = dict[str, Any]


def model_tensors(model: nn.Module) -> tuple[Tensors, dict[str, str]]:
    """The model's own tensors without the tied ones, and {name of a tied tensor: name of the one that is kept}."""
    kept, aliases, seen = Tensors(), dict[str, str](), dict[tuple[Any, ...], str]()
    for name, tensor in model.state_dict().items():
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        first = seen.setdefault(identity, name)
        if first == name:
            kept[name] = tensor
        else:
            aliases[name] = first
    return kept, aliases


def state_tensors(model: nn.Module, optimizer: Optimizer) -> Tensors:
    """The optimizer's own tensors and the states of torch's random generators."""
    names = parameter_names(model, optimizer)
    tensors = {
        f"optimizer/{names[index]}/{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    tensors["rng/cpu"] = torch.get_rng_state()
    if _on_gpu(model):
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    return tensors


def parameter_names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Names of the optimizer's parameters, in the order by which its state dict numbers them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def restore(files: CheckpointFiles, model: nn.Module, optimizer: Optimizer) -> Document:
    """Put a checkpoint into model, optimizer and random generators; return the document of its state file.

    Raises CheckpointCorrupt where a file is torn or the two don't belong together, CheckpointUnreadable where this
    machine changed one, CheckpointUnfit where they are of another model.
    """
    weights, head = read_tensors(files.model_path, sha256=files.model_sha256)
    state, document = read_tensors(files.state_path, sha256=files.state_sha256)
    if document.get("model_crc32") != head["crc32"]:
        raise CheckpointCorrupt(f"{files.model_path} and {files.state_path} are not of one checkpoint")
    try:
        weights |= {name: weights[first] for name, first in head["aliases"].items()}
        model.load_state_dict(weights)
        _restore_optimizer(state, model, optimizer)
        torch.set_rng_state(state["rng/cpu"])
        if "rng/cuda" in state and _on_gpu(model):
            torch.cuda.set_rng_state(state["rng/cuda"])
    except (KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) or "can't allocate memory" in str(error):
            raise
        raise CheckpointUnfit(f"{files.state_path} does not fit this job: {error}") from error
    return document


def _on_gpu(model: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in model.parameters())


def _restore_optimizer(state: Tensors, model: nn.Module, optimizer: Optimizer) -> None:
    """By way of the public state dict, so that whatever the optimizer keeps beside it is rebuilt."""
    whole = optimizer.state_dict()
    number = {name: index for index, name in enumerate(parameter_names(model, optimizer))}
    whole["state"] = {}
    for path, tensor in state.items():
        kind, _, rest = path.partition("/")
        if kind == "optimizer":
            name, _, key = rest.rpartition("/")
            whole["state"].setdefault(number[name], {})[key] = tensor
    optimizer.load_state_dict(whole)
