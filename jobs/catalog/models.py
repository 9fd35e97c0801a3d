"""Models: each compiles to one list of layers, which the trainer builds as torch.nn.Sequential.

Layer i's parameters are therefore named "i.weight" and "i.bias", as in torch's state_dict.
"""

from __future__ import annotations

from math import prod

from jobs.catalog.entries import Entry, entry
from jobs.catalog.shapes import Mismatch, Shape, output_shape, parameters, text
from traind.errors import InvalidSpec
from traind.spec import (
    Activation,
    ActivationLayer,
    Cnn,
    Conv2dLayer,
    DropoutLayer,
    FlattenLayer,
    Layer,
    Linear,
    LinearLayer,
    MaxPool2dLayer,
    Mlp,
    Model,
    Sequential,
)

MAX_PARAMETERS = 2_000_000_000


def layers(model: Model, input_shape: Shape, n_outputs: int) -> tuple[Layer, ...]:
    """The layers of `model` for samples of `input_shape` and `n_outputs` classes or targets.

    Raises InvalidSpec, with the pointer of the layer or field to blame, where the shapes do not fit.
    """
    match model:
        case Linear():
            return (FlattenLayer(type="flatten"), LinearLayer(type="linear", out_features=n_outputs))
        case Mlp():
            return _head(model.hidden, model.activation, model.dropout, n_outputs)
        case Cnn():
            body = _body(model, input_shape)
            return body + _head(model.hidden, model.activation, model.dropout, n_outputs)
        case Sequential():
            _check_end(model.layers, input_shape, n_outputs)
            return model.layers


def parameter_shapes(layers: tuple[Layer, ...], input_shape: Shape) -> dict[str, Shape]:
    """Name and shape of every parameter of layers that fit, in the order of torch's `named_parameters`.

    Raises InvalidSpec where there are more than MAX_PARAMETERS, or none at all.
    """
    shape, found = input_shape, dict[str, Shape]()
    for index, layer in enumerate(layers):
        found |= {f"{index}.{name}": size for name, size in parameters(layer, shape).items()}
        shape = output_shape(layer, shape)
    count = sum(map(prod, found.values()))
    if count > MAX_PARAMETERS:
        raise InvalidSpec.at("/model", f"the model has {count:,} parameters; at most {MAX_PARAMETERS:,}")
    if not found:
        raise InvalidSpec.at("/model", "the model has no parameters, so there is nothing to train")
    return found


def describe() -> list[Entry]:
    """Every model, with the JSON schema of its parameters."""
    return [entry(part) for part in (Linear, Mlp, Cnn, Sequential)]


def _head(hidden: tuple[int, ...], activation: Activation, dropout: float, n_outputs: int) -> tuple[Layer, ...]:
    """flatten, then linear, activation and (where it is not 0) dropout per hidden size, then linear."""
    built: list[Layer] = [FlattenLayer(type="flatten")]
    for size in hidden:
        built += [LinearLayer(type="linear", out_features=size), ActivationLayer(type=activation)]
        if dropout:
            built.append(DropoutLayer(type="dropout", p=dropout))
    return (*built, LinearLayer(type="linear", out_features=n_outputs))


def _body(model: Cnn, input_shape: Shape) -> tuple[Layer, ...]:
    """conv 3 x 3 (padded), activation and max-pool 2 per channel count."""
    if len(input_shape) != 3:
        raise InvalidSpec.at("/model", f"cnn expects images [channels, height, width], got {text(input_shape)}")
    built: list[Layer] = []
    height, width = input_shape[1:]
    for index, channels in enumerate(model.channels):
        if min(height, width) < 2:
            raise InvalidSpec.at(
                f"/model/channels/{index}",
                f"{text(input_shape)} is {height} x {width} after {index} poolings by 2, too small for one more; "
                f"give at most {index} channel counts",
            )
        built += [
            Conv2dLayer(type="conv2d", out_channels=channels, kernel_size=3, padding=1),
            ActivationLayer(type=model.activation),
            MaxPool2dLayer(type="max_pool2d", kernel_size=2),
        ]
        height, width = height // 2, width // 2
    return tuple(built)


def _check_end(layers: tuple[Layer, ...], input_shape: Shape, n_outputs: int) -> None:
    """The layers fit each other, the input and the outputs."""
    shape = input_shape
    for index, layer in enumerate(layers):
        try:
            shape = output_shape(layer, shape)
        except Mismatch as mismatch:
            at = f"/model/layers/{index}" + (f"/{mismatch.field}" if mismatch.field else "")
            raise InvalidSpec.at(at, f"layer {index} ({layer.type}) {mismatch.reason}") from None
    if shape != (n_outputs,):
        raise InvalidSpec.at(
            f"/model/layers/{len(layers) - 1}",
            f"the last layer gives {text(shape)}, but the dataset has {n_outputs} outputs; "
            f"end with a linear layer of out_features {n_outputs}",
        )
