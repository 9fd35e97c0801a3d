"""A job's model as data that torch alone can use, and the judgement of such data from a file of anybody's.

The trainer builds its own models from `torch_layers`, so the description cannot differ from what was trained.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobs.catalog.datasets import DatasetFacts, Normalisation
from jobs.catalog.shapes import Mismatch, Shape, output_shape, text
from traind.architecture import Architecture, Preprocessing, TorchLayer
from traind.errors import reason
from traind.spec import (
    AvgPool2dLayer,
    BatchNorm1dLayer,
    BatchNorm2dLayer,
    Conv2dLayer,
    Layer,
    LayerNormLayer,
    LinearLayer,
    MaxPool2dLayer,
)

MODULES = {
    "linear": "Linear",
    "conv2d": "Conv2d",
    "max_pool2d": "MaxPool2d",
    "avg_pool2d": "AvgPool2d",
    "batch_norm1d": "BatchNorm1d",
    "batch_norm2d": "BatchNorm2d",
    "layer_norm": "LayerNorm",
    "flatten": "Flatten",
    "dropout": "Dropout",
    "relu": "ReLU",
    "gelu": "GELU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "leaky_relu": "LeakyReLU",
}
"""Type of a layer in a spec: its class in torch.nn. What a spec says of a layer is named as torch's argument is."""
_TYPES = {module: kind for kind, module in MODULES.items()}
_DERIVED = {"in_features", "in_channels", "num_features", "normalized_shape"}
"""Arguments that follow from the shape of the layer's input."""
NOTHING_TO_DO = Normalisation(mean=0.0, std=1.0)
"""It changes no bit of finite values."""
_LAYER: TypeAdapter[Layer] = TypeAdapter(Layer)


def torch_layers(layers: tuple[Layer, ...], input_shape: Shape) -> tuple[TorchLayer, ...]:
    """Each layer as a call of torch.nn, for samples of `input_shape`. Raises Mismatch if a layer does not fit."""
    built, shape = [], input_shape
    for index, layer in enumerate(layers):
        after = output_shape(layer, shape)
        built.append(TorchLayer(name=str(index), module=MODULES[layer.type], arguments=_arguments(layer, shape)))
        shape = after
    return tuple(built)


def architecture(data: DatasetFacts, layers: tuple[Layer, ...]) -> Architecture:
    """The description of a model of these layers, which fit the data set."""
    normalisation = data.normalisation or NOTHING_TO_DO
    return Architecture(
        dataset=data.name,
        input_shape=data.input_shape,
        preprocessing=Preprocessing(values=data.values, mean=normalisation.mean, std=normalisation.std),
        layers=torch_layers(layers, data.input_shape),
        n_outputs=data.n_outputs,
        loss=data.loss,
        classes=data.classes,
    )


def read_architecture(document: Any) -> Architecture:
    """The description that a file holds. Raises ValueError unless a spec could have led to it: only known layers, with
    arguments in the bounds of a spec, that fit each other, the input and the outputs.
    """
    try:
        found = Architecture.model_validate(document)
        layers = tuple(_layer(layer) for layer in found.layers)
        rebuilt, last = torch_layers(layers, found.input_shape), _last_shape(layers, found.input_shape)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'/'.join(map(str, first['loc']))}: {reason(first)}") from None
    except Mismatch as mismatch:
        raise ValueError(f"a layer {mismatch.reason}") from None
    if rebuilt != found.layers:
        index = next(i for i, layer in enumerate(found.layers) if layer != rebuilt[i])
        raise ValueError(f"layers/{index} is not what its place and its input call for: {rebuilt[index].arguments}")
    if last != (found.n_outputs,):
        raise ValueError(f"the last layer gives {text(last)}, not {found.n_outputs} outputs")
    if found.classes is not None and len(found.classes) != found.n_outputs:
        raise ValueError(f"there are {len(found.classes)} classes for {found.n_outputs} outputs")
    return found.model_copy(update={"layers": rebuilt})


def _arguments(layer: Layer, shape: Shape) -> dict[str, Any]:
    given = layer.model_dump(exclude={"type"})
    match layer:
        case LinearLayer():
            return {"in_features": shape[0], **given}
        case Conv2dLayer():
            return {"in_channels": shape[0], **given}
        case MaxPool2dLayer() | AvgPool2dLayer():
            return {"kernel_size": layer.kernel_size, "stride": layer.stride or layer.kernel_size}
        case BatchNorm1dLayer() | BatchNorm2dLayer():
            return {"num_features": shape[0]}
        case LayerNormLayer():
            return {"normalized_shape": list(shape)}
    return given


def _layer(layer: TorchLayer) -> Layer:
    """The spec's layer. Raises ValueError for a module that no spec leads to, ValidationError for its arguments."""
    if layer.module not in _TYPES:
        raise ValueError(f"there is no layer {layer.module!r:.60}")
    given = {name: value for name, value in layer.arguments.items() if name not in _DERIVED}
    return _LAYER.validate_python({**given, "type": _TYPES[layer.module]})


def _last_shape(layers: tuple[Layer, ...], shape: Shape) -> Shape:
    for layer in layers:
        shape = output_shape(layer, shape)
    return shape
