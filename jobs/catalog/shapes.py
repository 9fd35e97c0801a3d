"""What one layer does to the shape of a sample, and which parameters it has: torch.nn's rules, without torch.

Shapes are without the batch dimension: (features,) or (channels, height, width).
"""

from __future__ import annotations

from math import prod

from traind.spec import (
    AvgPool2dLayer,
    BatchNorm1dLayer,
    BatchNorm2dLayer,
    Conv2dLayer,
    FlattenLayer,
    Layer,
    LayerNormLayer,
    LinearLayer,
    MaxPool2dLayer,
)

Shape = tuple[int, ...]
MAX_VALUES_PER_SAMPLE = 100_000_000


class Mismatch(Exception):
    """The layer does not take this shape. `field` is the one to blame, "" where it is the layer as a whole."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def output_shape(layer: Layer, shape: Shape) -> Shape:
    """The shape that `layer` makes of `shape`. Raises Mismatch where torch would refuse it."""
    out = _output_shape(layer, shape)
    if prod(out) > MAX_VALUES_PER_SAMPLE:
        raise Mismatch("", f"gives {text(out)}: {prod(out):,} values per sample; at most {MAX_VALUES_PER_SAMPLE:,}")
    return out


def _output_shape(layer: Layer, shape: Shape) -> Shape:
    match layer:
        case LinearLayer():
            _expect(shape, 1, "[features]; put a flatten layer before it")
            return (layer.out_features,)
        case Conv2dLayer():
            _expect(shape, 3, "[channels, height, width]")
            return (layer.out_channels, *_slide(shape, layer.kernel_size, layer.stride, layer.padding))
        case MaxPool2dLayer() | AvgPool2dLayer():
            _expect(shape, 3, "[channels, height, width]")
            return (shape[0], *_slide(shape, layer.kernel_size, layer.stride or layer.kernel_size, 0))
        case FlattenLayer():
            return (prod(shape),)
        case BatchNorm1dLayer():
            _expect(shape, 1, "[features]")
        case BatchNorm2dLayer():
            _expect(shape, 3, "[channels, height, width]")
    return shape


def parameters(layer: Layer, shape: Shape) -> dict[str, Shape]:
    """Name and shape of each parameter of `layer` on input `shape`, in torch's order."""
    match layer:
        case LinearLayer():
            weight: Shape = (layer.out_features, shape[0])
            return {"weight": weight} | ({"bias": weight[:1]} if layer.bias else {})
        case Conv2dLayer():
            weight = (layer.out_channels, shape[0], layer.kernel_size, layer.kernel_size)
            return {"weight": weight} | ({"bias": weight[:1]} if layer.bias else {})
        case BatchNorm1dLayer() | BatchNorm2dLayer():
            return {"weight": shape[:1], "bias": shape[:1]}
        case LayerNormLayer():
            return {"weight": shape, "bias": shape}
    return {}


def text(shape: Shape) -> str:
    """The shape as a person reads it: [1, 28, 28]."""
    return str(list(shape))


def _expect(shape: Shape, rank: int, wanted: str) -> None:
    if len(shape) != rank:
        raise Mismatch("", f"expects {wanted}, got {text(shape)}")


def _slide(shape: Shape, kernel: int, stride: int, padding: int) -> Shape:
    height, width = shape[1] + 2 * padding, shape[2] + 2 * padding
    if kernel > min(height, width):
        padded = f" ({height} x {width} padded)" if padding else ""
        raise Mismatch("kernel_size", f"has kernel_size {kernel}, larger than its input {text(shape)}{padded}")
    return ((height - kernel) // stride + 1, (width - kernel) // stride + 1)
