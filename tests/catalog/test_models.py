"""The catalogue against torch: parameter names, their shapes, output shapes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from jobs.catalog.models import layers, parameter_shapes
from jobs.catalog.shapes import output_shape
from traind.errors import InvalidSpec
from traind.spec import Layer, Model
from worker.training.models import build_model

MODEL: TypeAdapter[Model] = TypeAdapter(Model)
ACTIVATIONS = ["relu", "gelu", "tanh", "sigmoid", "silu", "leaky_relu"]

either = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from([*ACTIVATIONS, "layer_norm"])}),
    st.fixed_dictionaries({"type": st.just("dropout"), "p": st.floats(0, 0.9)}),
)
image_layer = st.one_of(
    either,
    st.just({"type": "batch_norm2d"}),
    st.fixed_dictionaries(
        {
            "type": st.just("conv2d"),
            "out_channels": st.integers(1, 5),
            "kernel_size": st.integers(1, 5),
            "stride": st.integers(1, 3),
            "padding": st.integers(0, 3),
            "bias": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["max_pool2d", "avg_pool2d"]),
            "kernel_size": st.integers(1, 4),
            "stride": st.none() | st.integers(1, 4),
        }
    ),
)
flat_layer = st.one_of(
    either,
    st.just({"type": "batch_norm1d"}),
    st.fixed_dictionaries({"type": st.just("linear"), "out_features": st.integers(1, 9), "bias": st.booleans()}),
)


def sequential(found: list[dict[str, Any]]) -> Model:
    return MODEL.validate_python({"name": "sequential", "layers": found})


def compare_with_torch(model: Model, input_shape: tuple[int, ...], n_outputs: int) -> None:
    with torch.device("meta"):
        module = build_model(model, input_shape, n_outputs)
    compiled = layers(model, input_shape, n_outputs)
    theirs = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert list(parameter_shapes(compiled, input_shape).items()) == list(theirs.items())
    value, shape = torch.empty(2, *input_shape, device="meta"), input_shape
    for part, layer in zip(module, compiled, strict=True):
        value, shape = part(value), output_shape(layer, shape)
        assert tuple(value.shape) == (2, *shape), layer
    assert shape == (n_outputs,)


@given(st.lists(image_layer, max_size=6), st.lists(flat_layer, max_size=4), st.integers(1, 3), st.integers(4, 13))
@settings(max_examples=150, deadline=None)
def test_random_layers_have_the_shapes_of_torch_or_are_refused_by_it_too(
    body: list[dict[str, Any]], head: list[dict[str, Any]], channels: int, side: int
) -> None:
    shape = (channels, side, side + 1)
    model = sequential([*body, {"type": "flatten"}, *head, {"type": "linear", "out_features": 7}])
    try:
        layers(model, shape, 7)
    except InvalidSpec as refused:
        (problem,) = refused.problems
        _, _, _, index, field = problem.pointer.split("/")
        assert field == "kernel_size"
        assert torch_refuses(body[: int(index) + 1], shape)
    else:
        compare_with_torch(model, shape, 7)


def torch_refuses(body: list[dict[str, Any]], shape: tuple[int, ...]) -> bool:
    """The last of these layers raises in torch; those before it don't."""
    one: TypeAdapter[Layer] = TypeAdapter(Layer)
    known = [one.validate_python(layer) for layer in body]
    for layer in known[:-1]:
        shape = output_shape(layer, shape)
    kernel, padding = body[-1]["kernel_size"], body[-1].get("padding", 0)
    kind = (
        torch.nn.Conv2d(shape[0], 1, kernel, padding=padding) if "padding" in body[-1] else torch.nn.MaxPool2d(kernel)
    )
    try:
        kind(torch.zeros(1, *shape))
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize(
    ("model", "input_shape"),
    [
        ({"name": "linear"}, (1, 8, 8)),
        ({"name": "linear"}, (20,)),
        ({"name": "mlp", "hidden": []}, (20,)),
        ({"name": "mlp", "hidden": [32, 16], "activation": "gelu", "dropout": 0.5}, (1, 28, 28)),
        ({"name": "cnn"}, (1, 28, 28)),
        ({"name": "cnn", "channels": [3, 4, 5], "hidden": [], "dropout": 0.1}, (2, 9, 8)),
    ],
)
def test_named_models_are_what_torch_builds(model: dict[str, Any], input_shape: tuple[int, ...]) -> None:
    compare_with_torch(MODEL.validate_python(model), input_shape, 10)


def test_names_are_those_of_torchs_state_dict() -> None:
    names = parameter_shapes(layers(MODEL.validate_python({"name": "mlp"}), (1, 8, 8), 10), (1, 8, 8))
    assert names == {"1.weight": (128, 64), "1.bias": (128,), "3.weight": (10, 128), "3.bias": (10,)}


@pytest.mark.parametrize(
    ("found", "pointer", "reason"),
    [
        (
            [{"type": "flatten"}, {"type": "conv2d", "out_channels": 2, "kernel_size": 3}],
            "/model/layers/1",
            "layer 1 (conv2d) expects [channels, height, width], got [64]",
        ),
        (
            [{"type": "linear", "out_features": 10}],
            "/model/layers/0",
            "layer 0 (linear) expects [features]; put a flatten layer before it, got [1, 8, 8]",
        ),
        (
            [{"type": "max_pool2d", "kernel_size": 9}],
            "/model/layers/0/kernel_size",
            "layer 0 (max_pool2d) has kernel_size 9, larger than its input [1, 8, 8]",
        ),
        (
            [{"type": "conv2d", "out_channels": 2, "kernel_size": 11, "padding": 1}],
            "/model/layers/0/kernel_size",
            "layer 0 (conv2d) has kernel_size 11, larger than its input [1, 8, 8] (10 x 10 padded)",
        ),
        (
            [{"type": "flatten"}, {"type": "linear", "out_features": 9}],
            "/model/layers/1",
            "the last layer gives [9], but the dataset has 10 outputs; end with a linear layer of out_features 10",
        ),
        ([{"type": "batch_norm1d"}], "/model/layers/0", "layer 0 (batch_norm1d) expects [features], got [1, 8, 8]"),
        (
            [{"type": "flatten"}, {"type": "batch_norm2d"}],
            "/model/layers/1",
            "layer 1 (batch_norm2d) expects [channels, height, width], got [64]",
        ),
        (
            [{"type": "conv2d", "out_channels": 4096, "kernel_size": 1, "padding": 64}] * 2,
            "/model/layers/1",
            "layer 1 (conv2d) gives [4096, 264, 264]: 285,474,816 values per sample; at most 100,000,000",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(found: list[dict[str, Any]], pointer: str, reason: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        layers(sequential(found), (1, 8, 8), 10)
    assert [(p.pointer, p.message) for p in refused.value.problems] == [(pointer, reason)]


def test_cnn_needs_an_image() -> None:
    with pytest.raises(InvalidSpec) as refused:
        layers(MODEL.validate_python({"name": "cnn"}), (20,), 4)
    assert refused.value.problems[0].pointer == "/model"
    assert "expects images [channels, height, width], got [20]" in refused.value.problems[0].message


def test_cnn_does_not_pool_an_image_away() -> None:
    with pytest.raises(InvalidSpec) as refused:
        layers(MODEL.validate_python({"name": "cnn", "channels": [1, 1, 1, 1]}), (1, 8, 8), 10)
    assert refused.value.problems[0].pointer == "/model/channels/3"
    assert "at most 3 channel counts" in refused.value.problems[0].message


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"name": "mlp", "hidden": [65_536, 65_536]}, "at most 2,000,000,000"),
        ({"name": "sequential", "layers": [{"type": "relu"}]}, "nothing to train"),
    ],
)
def test_number_of_parameters_has_limits(model: dict[str, Any], reason: str) -> None:
    compiled = layers(MODEL.validate_python(model), (20,), 20)
    with pytest.raises(InvalidSpec) as refused:
        parameter_shapes(compiled, (20,))
    assert refused.value.problems[0].pointer == "/model"
    assert reason in refused.value.problems[0].message
