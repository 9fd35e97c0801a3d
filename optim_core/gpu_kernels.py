"""The Triton kernels of the GPU path: what one program does with one block of one tensor.

`optim_core.gpu` imports this module where Triton is there, and says what the numbers of the table's columns mean: a
kernel sees no names but those of functions. The operations are those of `optim_core.rules`, in their order.
"""
# ruff: noqa: PLR0917, kernels take their arguments by position

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def address(entry: tl.tensor, column: tl.tensor, dtype: tl.constexpr, aligned: tl.constexpr) -> tl.tensor:
    """What a tensor's row of the table points to; where known to be aligned, it is read 16 bytes at a time."""
    pointer = tl.load(entry + column).to(tl.pointer_type(dtype))
    return tl.multiple_of(pointer, 16) if aligned else pointer


@triton.jit
def wide(x: tl.tensor) -> tl.tensor:
    """In the type that is calculated in."""
    return x if x.dtype == tl.float64 else x.to(tl.float32)


@triton.jit
def rounded(x: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    return x.to(dtype).to(x.dtype)


@triton.jit
def divided(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """x / y as IEEE rounds it; of float32, Triton's own / is an approximation, and so is its root."""
    return tl.div_rn(x, y) if x.dtype == tl.float32 else x / y


@triton.jit
def root(x: tl.tensor) -> tl.tensor:
    return tl.sqrt_rn(x) if x.dtype == tl.float32 else tl.sqrt(x)


# In the rules below, flags enter the masks as ends and signs as factors: the interpreter of Triton 3.9 makes numbers
# of & between comparisons, and that of 3.7 makes -0 a 0.


@triton.jit
def sgd_block(
    entry: tl.tensor, row: tl.tensor, offsets: tl.tensor, end: tl.tensor, dtype: tl.constexpr, aligned: tl.constexpr
) -> None:
    flags = tl.load(entry + 3)
    maximize, decay, has_momentum, first, nesterov = flags & 1, flags & 2, flags & 4, flags & 8, flags & 16
    params, grads = address(entry, 4, dtype, aligned) + offsets, address(entry, 5, dtype, aligned) + offsets
    buffers = address(entry, 6, dtype, aligned) + offsets
    p, g = wide(tl.load(params, mask=offsets < end)), wide(tl.load(grads, mask=offsets < end))
    b = wide(tl.load(buffers, mask=offsets < tl.where((flags & 12) == 4, end, 0)))
    scale, weight_decay, momentum = tl.load(row).to(p.dtype), tl.load(row + 1).to(p.dtype), tl.load(row + 2).to(p.dtype)
    one_minus_dampening, lr = tl.load(row + 3).to(p.dtype), tl.load(row + 4).to(p.dtype)

    g = rounded(g * scale, dtype)
    g = tl.where(maximize != 0, g * -1.0, g)
    g = tl.where(decay != 0, rounded(tl.fma(weight_decay, p, g), dtype), g)
    b = rounded(tl.fma(one_minus_dampening, g, rounded(b * momentum, dtype)), dtype)
    b = tl.where(first != 0, g, b)
    tl.store(buffers, b.to(dtype), mask=offsets < tl.where(has_momentum != 0, end, 0))
    moved = tl.where(nesterov != 0, rounded(tl.fma(momentum, b, g), dtype), b)
    g = tl.where(has_momentum != 0, moved, g)
    tl.store(params, tl.fma(lr * -1.0, g, p).to(dtype), mask=offsets < end)


@triton.jit
def adam_block(
    entry: tl.tensor, row: tl.tensor, offsets: tl.tensor, end: tl.tensor, dtype: tl.constexpr, aligned: tl.constexpr
) -> None:
    flags = tl.load(entry + 3)
    maximize, decay, decoupled, amsgrad = flags & 1, flags & 2, flags & 32, flags & 64
    params, grads = address(entry, 4, dtype, aligned) + offsets, address(entry, 5, dtype, aligned) + offsets
    averages, squares = address(entry, 6, dtype, aligned) + offsets, address(entry, 7, dtype, aligned) + offsets
    largests = address(entry, 8, dtype, aligned) + offsets
    p, g = wide(tl.load(params, mask=offsets < end)), wide(tl.load(grads, mask=offsets < end))
    m, v = wide(tl.load(averages, mask=offsets < end)), wide(tl.load(squares, mask=offsets < end))
    largest = wide(tl.load(largests, mask=offsets < tl.where(amsgrad != 0, end, 0)))
    scale, weight_decay, weight = tl.load(row).to(p.dtype), tl.load(row + 1).to(p.dtype), tl.load(row + 2).to(p.dtype)
    beta2, one_minus_beta2, eps = (
        tl.load(row + 3).to(p.dtype),
        tl.load(row + 4).to(p.dtype),
        tl.load(row + 5).to(p.dtype),
    )
    correction, step_size = tl.load(row + 6).to(p.dtype), tl.load(row + 7).to(p.dtype)

    g = rounded(g * scale, dtype)
    g = tl.where(maximize != 0, g * -1.0, g)
    p = tl.where(decoupled != 0, rounded(p * tl.load(row + 8).to(p.dtype), dtype), p)
    g = tl.where(decay != 0, rounded(tl.fma(weight_decay, p, g), dtype), g)
    near = tl.abs(weight) < 0.5  # torch's lerp goes from the nearer end
    m = rounded(tl.fma(tl.where(near, weight, weight - 1), g - m, tl.where(near, m, g)), dtype)
    v = rounded(tl.fma(one_minus_beta2 * g, g, rounded(v * beta2, dtype)), dtype)
    tl.store(averages, m.to(dtype), mask=offsets < end)
    tl.store(squares, v.to(dtype), mask=offsets < end)
    v = tl.where(amsgrad != 0, tl.maximum(v, largest, propagate_nan=tl.PropagateNan.ALL), v)
    tl.store(largests, v.to(dtype), mask=offsets < tl.where(amsgrad != 0, end, 0))
    denominator = rounded(rounded(divided(rounded(root(v), dtype), correction), dtype) + eps, dtype)
    tl.store(params, (p + divided(step_size * -1.0 * m, denominator)).to(dtype), mask=offsets < end)


@triton.jit
def sgd_kernel(
    table: tl.tensor, owners: tl.tensor, rows: tl.tensor, dtype: tl.constexpr, aligned: tl.constexpr, size: tl.constexpr
) -> None:
    entry = table + tl.load(owners + tl.program_id(0)) * 11
    row = rows + tl.load(entry + 2) * 5
    start = (tl.program_id(0) - tl.load(entry + 1)) * size
    if start + size <= tl.load(entry):  # an end that is known to be a multiple of the size leaves wide reads wide
        sgd_block(entry, row, start + tl.arange(0, size), start + size, dtype, aligned)
    else:
        sgd_block(entry, row, start + tl.arange(0, size), tl.load(entry), dtype, aligned)


@triton.jit
def adam_kernel(
    table: tl.tensor, owners: tl.tensor, rows: tl.tensor, dtype: tl.constexpr, aligned: tl.constexpr, size: tl.constexpr
) -> None:
    entry = table + tl.load(owners + tl.program_id(0)) * 11
    row = rows + tl.load(entry + 2) * 10
    start = (tl.program_id(0) - tl.load(entry + 1)) * size
    if start + size <= tl.load(entry):
        adam_block(entry, row, start + tl.arange(0, size), start + size, dtype, aligned)
    else:
        adam_block(entry, row, start + tl.arange(0, size), tl.load(entry), dtype, aligned)


@triton.jit
def adam_scalars_kernel(table: tl.tensor, scalars: tl.tensor, options: tl.tensor) -> None:
    """Count the step of one tensor and make its row of scalars, where that is for the device to do."""
    entry = table + tl.program_id(0) * 11
    index, address = tl.load(entry + 10), tl.load(entry + 9)
    if index >= 0:
        row, option = scalars + tl.load(entry + 2) * 10, options + index * 5
        lr, beta1, beta2, weight_decay = tl.load(option), tl.load(option + 1), tl.load(option + 2), tl.load(option + 4)
        steps = address.to(tl.pointer_type(tl.float32))
        step = tl.load(steps, mask=address != 0, other=0.0) + 1
        tl.store(steps, step, mask=address != 0)
        count = tl.where(address != 0, step.to(tl.float64), tl.load(row + 9))
        # beta^t by squaring; its rounding matters no more than that of beta itself, which 1 - beta^t blows up as much.
        left, power1, power2, square1, square2 = count.to(tl.int64), count * 0 + 1, count * 0 + 1, beta1, beta2
        while left > 0:
            power1 = tl.where(left % 2 == 1, power1 * square1, power1)
            power2 = tl.where(left % 2 == 1, power2 * square2, power2)
            square1, square2, left = square1 * square1, square2 * square2, left // 2
        tl.store(row + 1, weight_decay)
        tl.store(row + 2, 1 - beta1)
        tl.store(row + 3, beta2)
        tl.store(row + 4, 1 - beta2)
        tl.store(row + 5, tl.load(option + 3))
        tl.store(row + 6, tl.sqrt(1 - power2))
        tl.store(row + 7, lr / (1 - power1))
        tl.store(row + 8, 1 - lr * weight_decay)


@triton.jit
def squares_kernel(
    table: tl.tensor, owners: tl.tensor, sums: tl.tensor, dtype: tl.constexpr, aligned: tl.constexpr, size: tl.constexpr
) -> None:
    """The sum of the squares of one block."""
    entry = table + tl.load(owners + tl.program_id(0)) * 11
    start = (tl.program_id(0) - tl.load(entry + 1)) * size
    offsets = start + tl.arange(0, size)
    grads = address(entry, 5, dtype, aligned) + offsets
    if start + size <= tl.load(entry):
        g = tl.load(grads).to(tl.float64)
    else:
        g = tl.load(grads, mask=offsets < tl.load(entry), other=0.0).to(tl.float64)
    tl.store(sums + tl.program_id(0), tl.sum(g * g))


@triton.jit
def norm_kernel(sums: tl.tensor, norm: tl.tensor, n: tl.tensor) -> None:
    total = tl.zeros([1024], tl.float64)
    for start in range(0, n, 1024):
        offsets = start + tl.arange(0, 1024)
        total += tl.load(sums + offsets, mask=offsets < n, other=0.0)
    tl.store(norm, tl.sqrt(tl.sum(total)).to(norm.dtype.element_ty))
