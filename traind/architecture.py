"""The model of a job as data: how raw values become its input, its layers as calls of torch.nn, its classes.

It stands in a job's `resolved` and in the metadata of each file of weights, so that the weights can be used without
traind. `jobs.catalog.architecture` makes it from a spec and judges one that comes from a file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_LAYERS = 256
Size = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Shape = Annotated[tuple[Size, ...], Field(min_length=1, max_length=3)]
Float = Annotated[float, Field(strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Preprocessing(_Part):
    """What is done to raw values, in this order: shape [batch, *input_shape], `dtype`, minus `mean`, divided by `std`.

    Both constants are rounded to `dtype` first, and each operation rounds to it.
    """

    values: str
    """What the raw values are, and how they lie in `input_shape`."""
    dtype: Literal["float32"] = "float32"
    mean: Float
    std: Annotated[Float, Field(gt=0)]


class TorchLayer(_Part):
    """A layer as a call: getattr(torch.nn, module)(**arguments). What `arguments` does not name is torch's default."""

    name: str
    """What the names of its tensors begin with: "1" for "1.weight"."""
    module: str
    arguments: dict[str, Any]


class Architecture(_Part):
    """All that one needs to use a job's weights: the layers in their order, what goes in and what comes out."""

    dataset: str
    input_shape: Shape
    """Shape of one sample, without the batch."""
    preprocessing: Preprocessing
    layers: Annotated[tuple[TorchLayer, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    n_outputs: Size
    loss: Literal["cross_entropy", "mse"]
    """Of cross_entropy the outputs are logits, one per class; of mse they are the targets themselves."""
    classes: Annotated[tuple[str, ...], Field(max_length=1_000)] | None = None
    """Names of the classes by index; null if they are only numbers, or there are none."""
