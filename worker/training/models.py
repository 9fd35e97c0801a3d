"""From the catalogue's layers, which are calls of torch.nn, to torch.nn.Sequential."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from jobs.catalog.architecture import torch_layers
from jobs.catalog.models import layers
from jobs.catalog.shapes import Shape
from traind.architecture import TorchLayer
from traind.spec import Model


def build_model(model: Model, input_shape: Shape, n_outputs: int) -> nn.Sequential:
    """The model with torch's own initial weights, drawn from torch's global generator.

    [batch, *input_shape] float32 to [batch, n_outputs]. Raises InvalidSpec where the shapes do not fit.
    """
    return nn.Sequential(*modules(torch_layers(layers(model, input_shape, n_outputs), input_shape)))


def modules(layers: Iterable[TorchLayer]) -> list[nn.Module]:
    """The layers as modules. They must be the catalogue's own: any class of torch.nn is called as they say."""
    return [getattr(nn, layer.module)(**layer.arguments) for layer in layers]
