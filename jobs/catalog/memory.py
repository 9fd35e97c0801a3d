"""What a trainer on the CPU holds in memory at its peak, estimated without torch, and the limit that it may not exceed.

tests/training/test_memory.py compares the estimate with real trainers; docs/benchmarks.md has more of them. The memory
of a GPU is not estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from jobs.catalog.models import layers, parameter_shapes
from jobs.catalog.optimizers import ParamGroup, param_groups
from jobs.catalog.shapes import output_shape
from traind.errors import InvalidSpec
from traind.spec import (
    BatchNorm2dLayer,
    Conv2dLayer,
    DropoutLayer,
    FlattenLayer,
    JobSpec,
    Layer,
    MaxPool2dLayer,
    Resolved,
)

BASE_BYTES = 210_000_000
"""Python, torch and what torch loads in the first steps, measured with a tiny model and tiny data."""
FLOAT = 4
EVALUATION_BATCH = 1_000
"""As in worker.training.evaluate."""
BLOCK_BYTES = 1 << 20
"""As in worker.training.data."""
STATISTICS_ROWS = 8_192
"""As in worker.training.datasets.synthetic, which makes two copies in float64 of so many rows."""
UNPACKING_BYTES = 80_000_000
"""A packed file of Fashion-MNIST, its content, and the pixels chosen from it."""
SLACK = 1.3
"""What the allocator and the layers' scratch memory add to activations, as a factor."""

Sizes = tuple[Layer, int, int]
"""A layer, and how many values per sample go in and come out."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by the part of the spec that they are for, beside BASE_BYTES."""

    dataset: int
    model: int
    """Parameters, gradients, the optimizer's state, and the copy that a checkpoint is written from."""
    batch: int
    """The rows of a batch and the values that its step, or an evaluation, computes."""
    loading: int
    """Needed only while the data is loaded, before there are gradients."""

    @property
    def peak_bytes(self) -> int:
        return BASE_BYTES + self.dataset + max(self.model + self.batch, self.loading)


def estimate(spec: JobSpec, resolved: Resolved) -> Estimate:
    """What a trainer of this job holds; the parts of the spec must fit each other."""
    model = layers(spec.model, resolved.input_shape, resolved.n_outputs)
    shapes = parameter_shapes(model, resolved.input_shape)
    groups = param_groups(spec.optimizer, list(shapes))
    state = FLOAT * sum(_states(spec, group) * prod(shapes[name]) for group in groups for name in group.params)
    values = FLOAT * resolved.n_parameters
    rule = spec.training.divergence
    before = values if rule is not None and rule.update_norm_factor is not None else 0
    data = (resolved.n_train + resolved.n_validation) * _sample_bytes(resolved)
    sizes = list(_sizes(model, resolved))
    return Estimate(
        dataset=data,
        model=3 * values + 2 * state + before,
        batch=_rows(spec, resolved) + max(_step(sizes, resolved), _evaluation(sizes, resolved)),
        loading=values + max(data, _reading(spec, resolved)),
    )


def refuse_above(limit_bytes: int | None, spec: JobSpec, resolved: Resolved) -> None:
    """Raises InvalidSpec, with the pointer of what takes the most, if the job needs more than `limit_bytes`."""
    if limit_bytes is None or resolved.memory_bytes is None or resolved.memory_bytes <= limit_bytes:
        return
    needed = estimate(spec, resolved)
    shares = [
        (needed.dataset, "/dataset", "the data: take fewer samples or features"),
        (needed.model, "/model", "parameters and optimizer state: give a smaller model"),
        (needed.batch, "/training/batch_size", "what a step computes: give a smaller batch_size"),
    ]
    _, pointer, most = max(shares)
    raise InvalidSpec.at(
        pointer,
        f"its trainer needs about {gigabytes(resolved.memory_bytes)} of memory; this service takes jobs of at most "
        f"{gigabytes(limit_bytes)} (TRAIND_MAX_JOB_MEMORY_BYTES). Most is for {most}",
        code="memory",
    )


def gigabytes(n_bytes: int) -> str:
    """As a person reads it: "0.43 GB", "12.3 GB"."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes < 10e9 else f"{n_bytes / 1e9:,.1f} GB"


def _states(spec: JobSpec, group: ParamGroup) -> int:
    """How many values the optimizer keeps per parameter of the group."""
    if spec.optimizer.name == "sgd":
        return 1 if group.options["momentum"] else 0
    return 3 if group.options["amsgrad"] else 2


def _sample_bytes(resolved: Resolved) -> int:
    target = 8 if resolved.loss == "cross_entropy" else FLOAT * resolved.n_outputs
    return FLOAT * prod(resolved.input_shape) + target


def _reading(spec: JobSpec, resolved: Resolved) -> int:
    """What the data is made from, before its arrays are copied into tensors."""
    if spec.dataset.name == "fashion_mnist":
        return UNPACKING_BYTES
    if spec.dataset.name == "digits":
        return 0
    return 2 * 8 * min(resolved.n_train, STATISTICS_ROWS) * prod(resolved.input_shape)


def _rows(spec: JobSpec, resolved: Resolved) -> int:
    """The rows gathered for the batches at hand and for the next ones, and the order of the epoch."""
    if resolved.batch_size == resolved.n_train or not spec.training.shuffle:
        return 0
    return 2 * max(resolved.batch_size * _sample_bytes(resolved), BLOCK_BYTES) + 8 * resolved.n_train


def _step(sizes: list[Sizes], resolved: Resolved) -> int:
    """The values that a step keeps for its backward pass, and the gradients of the largest layer."""
    kept = sum(_kept(layer) * size for layer, _, size in sizes)
    loss = 5 * resolved.n_outputs  # outputs, their log-softmax, the gradients of both, the outputs of the step before
    return int(SLACK * FLOAT * resolved.batch_size * (kept + loss + _largest_layer(sizes)))


def _evaluation(sizes: list[Sizes], resolved: Resolved) -> int:
    return int(SLACK * FLOAT * min(EVALUATION_BATCH, resolved.n_validation) * _largest_layer(sizes))


def _kept(layer: Layer) -> int:
    """Values kept for each that the layer puts out."""
    match layer:
        case Conv2dLayer():
            return 3  # also input and output in the order that the convolution computes in
        case MaxPool2dLayer():
            return 3  # also the places of the largest values, 8 bytes each
        case DropoutLayer() | BatchNorm2dLayer():
            return 2  # also the mask, or the normalised values
    return 1


def _sizes(model: tuple[Layer, ...], resolved: Resolved) -> Iterator[Sizes]:
    """Of each layer that computes; to flatten is to look at the same values another way."""
    shape = resolved.input_shape
    for layer in model:
        out = output_shape(layer, shape)
        if not isinstance(layer, FlattenLayer):
            yield layer, prod(shape), prod(out)
        shape = out


def _largest_layer(sizes: list[Sizes]) -> int:
    """Input and output together."""
    return max(before + after for _, before, after in sizes)
