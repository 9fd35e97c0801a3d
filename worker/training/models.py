"""From the catalogue's list of layers to torch.nn.Sequential."""

from __future__ import annotations

from torch import nn

from jobs.catalog.models import layers
from jobs.catalog.shapes import Shape, output_shape
from traind.spec import (
    Activation,
    ActivationLayer,
    AvgPool2dLayer,
    BatchNorm1dLayer,
    BatchNorm2dLayer,
    Conv2dLayer,
    DropoutLayer,
    FlattenLayer,
    Layer,
    LayerNormLayer,
    LinearLayer,
    MaxPool2dLayer,
    Model,
)

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}


def build_model(model: Model, input_shape: Shape, n_outputs: int) -> nn.Sequential:
    """The model with torch's own initial weights, drawn from torch's global generator.

    [batch, *input_shape] float32 to [batch, n_outputs]. Raises InvalidSpec where the shapes do not fit.
    """
    built, shape = nn.Sequential(), input_shape
    for layer in layers(model, input_shape, n_outputs):
        built.append(_module(layer, shape))
        shape = output_shape(layer, shape)
    return built


def _module(layer: Layer, shape: Shape) -> nn.Module:
    match layer:
        case LinearLayer():
            return nn.Linear(shape[0], layer.out_features, bias=layer.bias)
        case Conv2dLayer():
            return nn.Conv2d(
                shape[0], layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias
            )
        case MaxPool2dLayer():
            return nn.MaxPool2d(layer.kernel_size, layer.stride)
        case AvgPool2dLayer():
            return nn.AvgPool2d(layer.kernel_size, layer.stride)
        case BatchNorm1dLayer():
            return nn.BatchNorm1d(shape[0])
        case BatchNorm2dLayer():
            return nn.BatchNorm2d(shape[0])
        case LayerNormLayer():
            return nn.LayerNorm(shape)
        case FlattenLayer():
            return nn.Flatten()
        case DropoutLayer():
            return nn.Dropout(layer.p)
        case ActivationLayer():
            return ACTIVATIONS[layer.type]()
