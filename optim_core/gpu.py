"""The GPU path: SGD and Adam for CUDA tensors, all parameters of one dtype in one launch of a Triton kernel.

Parameters, gradients and state stay where torch put them. A launch reads from device memory a table of addresses (one
row a tensor), the rows of scalars that it refers to, and the tensor that each block belongs to. The operations, their
order and their roundings are those of `optim_core.rules` and of the native kernel; what torch contracts is a fused
multiply-add here.

The host sends only what differs from what it sent last, each time from a new pinned tensor: torch's host allocator
gives that memory out again once the stream has passed the copy. Nothing waits for the device. Options, scales and
counts that are device tensors are read there, at each replay of a captured graph too; all else is captured as it is. A
capture has memory of its own, kept as long as the `GpuTable`. As for torch, take some steps before a capture: they
compile the kernels and make the state.

Triton (extra `gpu`) is imported when `available` is first called. With TRITON_INTERPRET=1 its interpreter runs the
kernels on CPU tensors, and every tensor option counts as one on the device. `optim_core.base` calls this module,
which checks nothing outside `takes`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch._prims_common import is_non_overlapping_and_dense_or_false
from torch.autograd.graph import increment_version

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PLAIN = (Tensor, torch.nn.Parameter)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BLOCK = 1024
"""Elements that one program updates."""

# Columns and flags. The kernels, which see no name of this module but functions, write them as numbers.
#   table         0 elements, 1 first block, 2 scalars, 3 flags, 4 param, 5 grad, 6-8 state, 9 step, 10 options
#   SGD scalars   0 scale, 1 weight_decay, 2 momentum, 3 1 - dampening, 4 lr
#   Adam scalars  0 scale, 1 weight_decay, 2 1 - beta1, 3 beta2, 4 1 - beta2, 5 eps, 6 sqrt(1 - beta2^t),
#                 7 lr / (1 - beta1^t), 8 1 - lr * weight_decay, 9 t
#   Adam options  0 lr, 1 beta1, 2 beta2, 3 eps, 4 weight_decay
TABLE, SGD_SCALARS, ADAM_SCALARS, ADAM_OPTIONS = 11, 5, 10, 5
MAXIMIZE, DECAY, MOMENTUM, FIRST, NESTEROV, DECOUPLED, AMSGRAD = 1, 2, 4, 8, 16, 32, 64

LATER = float("nan")
"""Stands for a number that the device puts in. Equal to none, so that a number in its place differs and is sent."""


@dataclass(frozen=True)
class Row:
    """A parameter, its gradient, its state and its param group, as torch's optimizers hold them."""

    param: Tensor
    grad: Tensor
    state: dict[str, Tensor]
    group: dict[str, Any]


def serves(tensor: Tensor) -> bool:
    """Whether a tensor is where the kernel runs: on a GPU, with Triton's interpreter also on the CPU."""
    return tensor.is_cuda or (INTERPRETED and tensor.is_cpu)


def available() -> bool:
    """Whether Triton can be imported."""
    return _kernels() is not None


def backend() -> str:
    """What updates parameters on a GPU: "triton" with its version, for it compiles the kernel, or "torch"."""
    if not available():
        return "torch"
    import triton

    return f"triton {triton.__version__}"


def takes(param: Tensor, grad: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether the kernel can update this parameter: on a GPU, of one of `DTYPES`, all in the same dense layout."""
    if param.dtype not in DTYPES or not (param.is_cuda or _interpreted()) or not available():
        return False
    step = state.get("step")
    if step is not None and step.is_cuda and (step.device, step.dtype) != (param.device, torch.float32):
        return False
    if type(param) not in PLAIN or param.layout is not torch.strided or param.is_neg():
        return False
    dtype, device, shape, stride = param.dtype, param.device, param.shape, param.stride()
    contiguous = param.is_contiguous()
    if not (contiguous or is_non_overlapping_and_dense_or_false(param)):
        return False
    for one in (grad, *[value for key, value in state.items() if key != "step" and value is not None]):
        # Of other types, sparse or lazily negated, a tensor is not what stands in memory.
        if type(one) not in PLAIN or one.layout is not torch.strided or one.is_neg():
            return False
        if one.dtype != dtype or one.device != device or one.shape != shape:
            return False
        # Where both are contiguous, dimensions of size 1 may have any stride.
        if one.stride() != stride and not (contiguous and one.is_contiguous()):
            return False
    return True


class _Place(NamedTuple):
    """Where a launch finds what was sent to the device last."""

    kernel: str
    device: torch.device
    stream: int
    capturing: bool
    dtype: torch.dtype
    aligned: bool
    repeat: int


class _Launch:
    """The tensors of one launch, and its table."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.rows: list[Row] = []
        self.table: list[int] = []
        self.firsts = [0]
        """Where each tensor's blocks begin, and how many there are."""

    def link(self, column: int, values: list[int]) -> None:
        """Fill a column of the table."""
        self.table[column::TABLE] = values


class _Scalars:
    """Rows of float64 for the device, with the device tensors that some of them take their numbers from."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.values: list[float] = []
        self.late: list[tuple[int, Tensor]] = []
        self._index_of: dict[Any, int] = {}

    def row(self, key: Any, numbers: Callable[..., Iterable[float | Tensor]], *arguments: Any) -> int:
        """The index of the row with this key, which is made of `numbers` if new."""
        index = self._index_of.get(key)
        if index is None:
            index = self._index_of[key] = len(self._index_of)
            for number in numbers(*arguments):
                if _is_on_device(number):
                    self.late.append((len(self.values), number))
                self.values.append(LATER if _is_on_device(number) else float(number))
        return index


class _Sent:
    """Numbers of the host, and their copy on the device."""

    values: list[Any] | None = None
    tensor: Tensor


class GpuTable:
    """The device memory of one optimizer's launches; see the module. Not to be pickled: make a new one."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, _Place], _Sent] = {}
        self._captured: list[Tensor] = []

    @torch.no_grad()
    def sgd(self, rows: Sequence[Row], *, scale: float | Tensor = 1.0) -> None:
        """Move each row by `rules.sgd_update`, its gradient multiplied by `scale` (a float or 0-d) first.

        The rows must be such as `takes` takes. With momentum, one without "momentum_buffer" gets it.
        """
        buffers: list[Tensor | None] = []
        flags: list[int] = []
        new = []
        for row, group in ((row, row.group) for row in rows):
            buffer, flag = None, MAXIMIZE * group["maximize"] | DECAY * _is_on(group["weight_decay"])
            if group["momentum"] != 0:
                buffer, flag = row.state.get("momentum_buffer"), flag | MOMENTUM | NESTEROV * group["nesterov"]
                if buffer is None:
                    buffer, flag = torch.empty_like(row.grad), flag | FIRST
                    new.append((row, buffer))
            buffers.append(buffer)
            flags.append(flag)
        for launch in _launches("sgd_kernel", rows, flags, [(_pointer(buffer), 0, 0) for buffer in buffers]):
            scalars = _Scalars(SGD_SCALARS)
            launch.link(2, [scalars.row(id(row.group), _sgd_scalars, row.group) for row in launch.rows])
            self._update(launch, scalars, None, scale)
        for row, buffer in new:
            row.state["momentum_buffer"] = buffer

    @torch.no_grad()
    def adam(self, rows: Sequence[Row], *, scale: float | Tensor = 1.0) -> None:
        """Move each row by `rules.adam_update`, its gradient multiplied by `scale` (a float or 0-d) first.

        The rows must be such as `takes` takes; their `step` counts this update. Where it or an option is on the device,
        the bias corrections are computed there.

        Raises RuntimeError in a capture where a `step` is on the host, before anything is written.

        Disagreement with the rules: options on the device are calculated with in float64, not in their own dtype.
        """
        flags: list[int] = []
        states: list[tuple[int, int, int]] = []
        of_group: dict[int, int] = {}
        for row, state in ((row, row.state) for row in rows):
            flag = of_group.get(id(row.group))
            if flag is None:
                flag = of_group[id(row.group)] = _adam_flags(row.group)
            largest = state["max_exp_avg_sq"].data_ptr() if flag & AMSGRAD else 0
            flags.append(flag)
            states.append((state["exp_avg"].data_ptr(), state["exp_avg_sq"].data_ptr(), largest))
        launches = _launches("adam_kernel", rows, flags, states)
        for launch in launches:
            if launch.place.capturing and not all(map(_counts_on_device, launch.rows)):
                raise RuntimeError("a captured graph would replay one bias correction; it needs capturable=True")
        for launch in launches:
            self._adam(launch, scale)

    def _adam(self, launch: _Launch, scale: float | Tensor) -> None:
        scalars, options = _Scalars(ADAM_SCALARS), _Scalars(ADAM_OPTIONS)
        links: list[int] = []
        addresses: list[int] = []
        of_options: list[int] = []
        counted: list[tuple[Tensor, float]] = []
        groups = {id(row.group): row.group for row in launch.rows}
        late = {key: any(map(_is_on_device, _adam_options(group))) for key, group in groups.items()}
        for row in launch.rows:
            group, step = row.group, row.state["step"]
            counts_there = _counts_on_device(row)
            count = 0.0
            if not counts_there:
                count = step.item() + 1
                counted.append((step, count))
            if counts_there or late[id(group)]:
                links.append(scalars.row(len(links), lambda count: (LATER,) * 9 + (count,), count))
                of_options.append(options.row(id(group), _adam_options, group))
            else:
                links.append(scalars.row((id(group), count), _adam_scalars, group, count))
                of_options.append(-1)
            addresses.append(step.data_ptr() if counts_there else 0)
        for column, values in ((2, links), (9, addresses), (10, of_options)):
            launch.link(column, values)
        self._update(launch, scalars, options, scale)
        for step, count in counted:
            step.fill_(count)

    def _update(self, launch: _Launch, scalars: _Scalars, options: _Scalars | None, scale: float | Tensor) -> None:
        """Send what differs, and launch."""
        place, width = launch.place, scalars.width
        scalars.values[::width] = [LATER if _is_on_device(scale) else float(scale)] * (len(scalars.values) // width)
        with _current(place.device):
            table, owners = self._send_table(launch)
            sent = self._send_scalars("scalars", place, scalars)
            if _is_on_device(scale):
                sent[::width].copy_(scale)
            if options is not None and options.values:
                there = self._send_scalars("options", place, options)
                _run("adam_scalars_kernel", len(launch.rows), table, sent, there)
            _run(place.kernel, len(owners), table, owners, sent, place=place)
        increment_version([row.param for row in launch.rows])

    @torch.no_grad()
    def grad_norm(self, grads: Sequence[Tensor]) -> Tensor:
        """The L2 norm of all gradients together: 0-d, on the first one's device, summed in float64 in one order.

        grads: at least one, dense and of `DTYPES`. The norm is float64 if one of them is, else float32.
        """
        wide = any(grad.dtype == torch.float64 for grad in grads)
        sums: dict[torch.device, list[Tensor]] = {}
        rows = [Row(grad, grad, {}, {}) for grad in grads]
        for launch in _launches("squares_kernel", rows, [0] * len(rows), [(0, 0, 0)] * len(rows)):
            with _current(launch.place.device):
                table, owners = self._send_table(launch)
                sums.setdefault(launch.place.device, []).append(owners.new_empty(len(owners), dtype=torch.float64))
                _run(launch.place.kernel, len(owners), table, owners, sums[launch.place.device][-1], place=launch.place)
        norms = []
        for device, parts in sums.items():
            norms.append(torch.empty((), dtype=torch.float64 if wide else torch.float32, device=device))
            with _current(device):
                joined = parts[0] if len(parts) == 1 else torch.cat(parts)
                _run("norm_kernel", 1, joined, norms[-1], len(joined))
        if len(norms) == 1:
            return norms[0]
        together = torch.stack([norm.to(norms[0].device, non_blocking=True) for norm in norms])
        return together.square_().sum().sqrt_()

    def _send_table(self, launch: _Launch) -> tuple[Tensor, Tensor]:
        """The table, and for each block the tensor that it belongs to."""
        place = launch.place
        table, owners = self._send("table", place, launch.table, torch.int64), self._last("owners", place)
        if owners.values != launch.firsts:
            blocks = torch.arange(launch.firsts[-1], device=place.device)
            # An empty tensor begins where the next one does; the last one to begin is the owner.
            owners.tensor = torch.bucketize(blocks, table[1::TABLE].contiguous(), right=True).sub_(1)
            owners.values = launch.firsts
            self._keep(place, owners.tensor)
        return table, owners.tensor

    def _send_scalars(self, what: str, place: _Place, scalars: _Scalars) -> Tensor:
        tensor = self._send(what, place, scalars.values, torch.float64)
        for index, number in scalars.late:
            tensor[index].copy_(number.squeeze())
        return tensor

    def _send(self, what: str, place: _Place, values: list[Any], dtype: torch.dtype) -> Tensor:
        last = self._last(what, place)
        if last.values != values:
            host = torch.tensor(values, dtype=dtype, pin_memory=place.device.type == "cuda")
            if last.values is None or len(last.values) != len(values):
                last.tensor = torch.empty(len(values), dtype=dtype, device=place.device)
            last.tensor.copy_(host, non_blocking=True)
            last.values = values
            self._keep(place, host, last.tensor)
        return last.tensor

    def _last(self, what: str, place: _Place) -> _Sent:
        """What was sent last; nothing in a capture, whose replays must find what they read untouched by other steps."""
        return _Sent() if place.capturing else self._sent.setdefault((what, place), _Sent())

    def _keep(self, place: _Place, *tensors: Tensor) -> None:
        if place.capturing:
            self._captured += tensors


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _launches(
    kernel: str, rows: Sequence[Row], flags: Sequence[int], states: Sequence[tuple[int, int, int]]
) -> list[_Launch]:
    """One for each device and dtype; tensors that aren't aligned apart; a parameter's second time after its first."""
    launches: dict[tuple[int, torch.dtype, bool, int], _Launch] = {}
    repeats: dict[int, int] = {}
    for row, flag, (state0, state1, state2) in zip(rows, flags, states, strict=True):
        param, grad = row.param.data_ptr(), row.grad.data_ptr()
        repeat = repeats[id(row.param)] = repeats.get(id(row.param), -1) + 1
        aligned = (param | grad | state0 | state1 | state2) % 16 == 0
        key = row.param.get_device(), row.param.dtype, aligned, repeat
        launch = launches.get(key)
        if launch is None:
            device, dtype = row.param.device, row.param.dtype
            launch = launches[key] = _Launch(_Place(kernel, device, *_stream(device), dtype, aligned, repeat))
        n_elements, first = row.grad.numel(), launch.firsts[-1]
        launch.rows.append(row)
        launch.table += (n_elements, first, 0, flag, param, grad, state0, state1, state2, 0, -1)
        launch.firsts.append(first - (-n_elements // BLOCK))
    return list(launches.values())


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Have launches go to this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _stream(device: torch.device) -> tuple[int, bool]:
    """The current stream, and whether a graph is captured on it."""
    if device.type != "cuda":
        return 0, False
    with _current(device):
        return torch.cuda.current_stream().cuda_stream, torch.cuda.is_current_stream_capturing()


def _sgd_scalars(group: dict[str, Any]) -> tuple[float | Tensor, ...]:
    return LATER, group["weight_decay"], group["momentum"], 1 - group["dampening"], group["lr"]


def _adam_options(group: dict[str, Any]) -> tuple[float | Tensor, ...]:
    return group["lr"], *group["betas"], group["eps"], group["weight_decay"]


def _adam_scalars(group: dict[str, Any], count: float) -> tuple[float | Tensor, ...]:
    """A row of scalars by the rules' arithmetic, which is in the dtype of tensor options."""
    lr, beta1, beta2, eps, weight_decay = (
        option.squeeze() if isinstance(option, Tensor) else option for option in _adam_options(group)
    )
    corrections = (1 - beta2**count) ** 0.5, lr / (1 - beta1**count)
    return LATER, weight_decay, 1 - beta1, beta2, 1 - beta2, eps, *corrections, 1 - lr * weight_decay, count


def _adam_flags(group: dict[str, Any]) -> int:
    decay = (DECOUPLED if group["decoupled_weight_decay"] else DECAY) * _is_on(group["weight_decay"])
    return MAXIMIZE * bool(group["maximize"]) | AMSGRAD * bool(group["amsgrad"]) | decay


def _counts_on_device(row: Row) -> bool:
    step = row.state["step"]
    return step.is_cuda or (bool(row.group.get("capturable")) and step.device == row.param.device)


def _is_on_device(value: float | Tensor) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and (value.is_cuda or _interpreted())


def _is_on(value: float | Tensor) -> bool:
    """Whether an option takes effect; one on the device always does, since to look would wait for it."""
    return _is_on_device(value) or bool(value != 0)


@cache
def _kernels() -> ModuleType | None:
    """The kernels, or None where Triton can't be imported."""
    try:
        from optim_core import gpu_kernels
    except Exception:  # whatever a broken install raises
        return None
    return gpu_kernels


@cache
def _interpreted() -> bool:
    if not os.environ.get("TRITON_INTERPRET") or not available():
        return False
    from triton import knobs

    return bool(knobs.runtime.interpret)


def _run(kernel: str, n_programs: int, *arguments: Any, place: _Place | None = None) -> None:
    """Run a kernel. The compiler may contract nothing, so that each operation rounds as it is written."""
    from triton import language

    from optim_core import gpu_kernels

    layout = {}
    if place is not None:
        dtype = getattr(language, str(place.dtype).removeprefix("torch."))
        layout = {"dtype": dtype, "aligned": place.aligned, "size": BLOCK}
    if n_programs:
        getattr(gpu_kernels, kernel)[(n_programs,)](*arguments, **layout, enable_fp_fusion=False)
