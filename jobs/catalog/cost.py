"""What a training step costs, without torch, and how many CPU threads that is worth: for jobs that do not say."""

from __future__ import annotations

from math import prod

from jobs.catalog.models import layers
from jobs.catalog.shapes import output_shape, parameters
from traind.spec import Conv2dLayer, JobSpec, Resolved

PASSES = 3
"""Forward, and twice as much backward: for the inputs and for the weights."""
FLOPS_PER_THREAD = 50_000_000
"""A second thread comes with twice this, a third with three times this; docs/benchmarks.md has the measurements."""


def step_flops(spec: JobSpec, resolved: Resolved) -> int:
    """Floating-point operations of one training step in matrix products and convolutions, which are nearly all."""
    shape, multiplications = resolved.input_shape, 0
    for layer in layers(spec.model, resolved.input_shape, resolved.n_outputs):
        out = output_shape(layer, shape)
        weights = prod(parameters(layer, shape).get("weight", (0,)))
        positions = prod(out[1:]) if isinstance(layer, Conv2dLayer) else 1
        multiplications += weights * positions
        shape = out
    return 2 * PASSES * multiplications * resolved.batch_size


def threads_worth(spec: JobSpec, resolved: Resolved, cores: int) -> int:
    """How many of `cores` a job should train with: one if its steps are small."""
    return max(1, min(cores, step_flops(spec, resolved) // FLOPS_PER_THREAD))
