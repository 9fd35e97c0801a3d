"""The model of a job as data: how raw values become its input, its layers as calls of torch.nn, its classes.

It is part of a job's `resolved` and of the metadata of each weights file, so that the weights can be used without
traind. `jobs.catalog.architecture` makes it from a spec, and validates one that comes from a file.
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
    """How raw values become input: shape [batch, *input_shape], then `dtype`, minus `mean`, divided by `std`.

    Both constants are rounded to `dtype` first, and each operation rounds to it.
    """

    values: str
    """Describes the raw values and their layout in `input_shape`."""
    dtype: Literal["float32"] = "float32"
    mean: Float
    std: Annotated[Float, Field(gt=0)]


class TorchLayer(_Part):
    """A layer as a call: getattr(torch.nn, module)(**arguments). Arguments that are not named have torch's defaults."""

    name: str
    """The prefix of the names of its tensors: "1" for "1.weight"."""
    module: str
    arguments: dict[str, Any]


class Architecture(_Part):
    """Everything needed to use a job's weights: the layers in order, their input and their output."""

    dataset: str
    input_shape: Shape
    """Shape of one sample, without the batch."""
    preprocessing: Preprocessing
    layers: Annotated[tuple[TorchLayer, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    n_outputs: Size
    loss: Literal["cross_entropy", "mse"]
    """With cross_entropy the outputs are logits, one per class; with mse they are the targets themselves."""
    classes: Annotated[tuple[str, ...], Field(max_length=1_000)] | None = None
    """Names of the classes by index; null if they are only numbers, or there are none."""
