"""The GPU kernels against the rules: in Triton's interpreter, compiled for an H100, and on a GPU where there is one.

The interpreter must be chosen before Triton is first imported, and with it `optim_core.gpu` takes CPU tensors for a
GPU's. So the tests of `TestInTheInterpreter` exist only in a process of their own, which `test_in_tritons_interpreter`
starts.
"""

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from optim_core import gpu
from optim_core.rules import adam_update, ieee_sqrt, sgd_update
from tests.optim_core import sample
from tests.optim_core.cases import CASES, Case, assert_same_bits, build, gradients, zoo

INTERPRETED = bool(os.environ.get("TRITON_INTERPRET"))
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

NESTEROV = Case("SGD", "nesterov, decay", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1})
AMSGRAD = Case("Adam", "amsgrad, decay", {"amsgrad": True, "weight_decay": 0.1})
BOTH = pytest.mark.parametrize("case", [NESTEROV, AMSGRAD], ids=str)
OFFSETS = pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "not aligned"])
NAN = float("nan")  # of one sign: a processor picks that of 0 / 0
DTYPES = pytest.mark.parametrize("dtype", gpu.DTYPES, ids=str)


class Walk:
    """Parameters with the options of a case, moved by the kernels or by the rules."""

    def __init__(self, case: Case, params: list[Parameter], **options: Any) -> None:
        self.params, self.adam, self.table = params, case.optimizer != "SGD", gpu.GpuTable()
        self.groups: list[dict[str, Any]] = build(case, params, ours=False).param_groups
        self.states: dict[Parameter, dict[str, Tensor]] = {}
        for group in self.groups:
            group.update(options)

    def rows(self, grads: Sequence[Tensor | None]) -> list[gpu.Row]:
        """Of the parameters with a gradient that the kernels take."""
        grad_of = dict(zip(self.params, grads, strict=True))
        pairs = [(param, group) for group in self.groups for param in group["params"] if grad_of[param] is not None]
        rows = [gpu.Row(param, grad_of[param], self._state(param, group), group) for param, group in pairs]
        return [row for row in rows if gpu.takes(row.param, row.grad, row.state)]

    def _state(self, param: Parameter, group: dict[str, Any]) -> dict[str, Tensor]:
        if param not in self.states:
            keys = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])] if self.adam else []
            self.states[param] = {key: torch.zeros_like(param.detach()) for key in keys}
            if self.adam:
                device = param.device if group["capturable"] else "cpu"
                self.states[param]["step"] = torch.tensor(0.0, device=device)
        return self.states[param]

    def by_kernel(self, grads: Sequence[Tensor | None], *, scale: float | Tensor = 1.0) -> int:
        rows = self.rows(grads)
        (self.table.adam if self.adam else self.table.sgd)(rows, scale=scale)
        return len(rows)

    @torch.no_grad()
    def by_rule(self, grads: Sequence[Tensor | None], *, scale: float = 1.0) -> None:
        """Tensor options by their values: the kernels calculate with those in float64."""
        for row in self.rows(grads):
            with OneRounding():
                self._rule(row, row.grad * scale)

    def _rule(self, row: gpu.Row, grad: Tensor) -> None:
        group, state = row.group, row.state
        values = self._values(group)
        if not self.adam:
            keys = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
            buffer = sgd_update(row.param, grad, state.get("momentum_buffer"), **{key: values[key] for key in keys})
            if buffer is not None:
                state["momentum_buffer"] = buffer
            return
        keys = ("lr", "eps", "weight_decay", "maximize", "decoupled_weight_decay")
        beta1, beta2 = values["betas"]
        state["step"] += 1
        adam_update(
            row.param,
            grad,
            state["exp_avg"],
            state["exp_avg_sq"],
            state.get("max_exp_avg_sq"),
            step=state["step"].item(),
            beta1=beta1,
            beta2=beta2,
            sqrt=ieee_sqrt,
            **{key: values[key] for key in keys},
        )

    @staticmethod
    def _values(group: dict[str, Any]) -> dict[str, Any]:
        return tree_map(lambda value: float(value) if isinstance(value, Tensor) else value, {**group, "params": None})

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for index, param in enumerate(self.params):
            yield f"param {index}", param.detach()
            for key, value in self.states.get(param, {}).items():
                yield f"param {index} {key}", value


class OneRounding(TorchDispatchMode):
    """bfloat16 and float16 as on a GPU: each operation in float32, rounded once. torch's CPU rounds some twice."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def wide(value: Any) -> Any:
            return value.float() if isinstance(value, Tensor) and value.dtype in gpu.DTYPES[2:] else value

        kwargs = kwargs or {}
        narrow = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.dtype in gpu.DTYPES[2:]]
        if not narrow:
            return func(*args, **kwargs)
        result = func(*tree_map(wide, args), **tree_map(wide, kwargs))
        written = kwargs.get("out", args[0] if func._schema.is_mutable else None)
        if written is not None:
            return written.copy_(result)
        return result.to(narrow[0].dtype) if isinstance(result, Tensor) else result


def gradients_like(params: Sequence[Tensor], steps: int, *, scale: float = 1.0) -> list[list[Tensor | None]]:
    rng = torch.Generator().manual_seed(5)
    return [
        [torch.empty_like(p.detach()).copy_(torch.randn(p.shape, generator=rng).to(p.dtype) * scale) for p in params]
        for _ in range(steps)
    ]


def parameters(*sizes: int, dtype: torch.dtype = torch.float32) -> list[Parameter]:
    rng = torch.Generator().manual_seed(3)
    return [Parameter(torch.randn(size, generator=rng).to(dtype)) for size in sizes]


def contracts() -> bool:
    """Whether torch on this CPU contracts a multiplication and an addition, as the kernels do."""
    x = torch.full((64,), 1 + 2.0**-12)
    return bool(torch.add(-(x * x), x, alpha=1 + 2.0**-12).any())


def assert_equal_walks(ours: Walk, theirs: Walk) -> None:
    """In every bit; nearly where torch doesn't contract, and where the device takes powers of beta for float64."""
    options = [option for group in ours.groups for option in (group["lr"], *group.get("betas", ()))]
    late = any(isinstance(option, Tensor) for option in options) or any(g.get("capturable") for g in ours.groups)
    for (name, one), (other_name, other) in zip(ours.tensors(), theirs.tensors(), strict=True):
        assert name == other_name
        if contracts() and not (ours.adam and late and one.dtype == torch.float64):
            assert_same_bits(*(iter([(name, value.masked_fill(value.isnan(), NAN))]) for value in (one, other)))
        else:
            rtol = {torch.float64: 1e-12, torch.float32: 1e-5}.get(one.dtype, 2e-2)
            torch.testing.assert_close(one, other, rtol=rtol, atol=rtol, equal_nan=True)


def walk_both(
    case: Case,
    params: list[Parameter],
    rows: Sequence[Sequence[Tensor | None]],
    *,
    scale: float | Tensor = 1.0,
    **options: Any,
) -> tuple[Walk, Walk]:
    """From the same values along the same gradients; asserted equal."""
    ours = Walk(case, [Parameter(p.detach().clone(), p.requires_grad) for p in params], **options)
    theirs = Walk(case, [Parameter(p.detach().clone(), p.requires_grad) for p in params], **options)
    for grads in rows:
        ours.by_kernel(grads, scale=scale)
        theirs.by_rule(grads, scale=float(scale))
    assert_equal_walks(ours, theirs)
    return ours, theirs


class Guarded:
    """Tensors as views into one buffer, with a sentinel before, between and after them."""

    def __init__(self, sizes: Sequence[int], dtype: torch.dtype, *, offset: int, device: str) -> None:
        step, self.inside = 2048, torch.zeros(2048 * (len(sizes) + 1) + 64, dtype=torch.bool, device=device)
        self.buffer = torch.full(self.inside.shape, 42.0, dtype=dtype, device=device)
        self.views = []
        for index, size in enumerate(sizes):
            part = slice(step * index + 32 + offset, step * index + 32 + offset + size)
            self.inside[part] = True
            self.views.append(self.buffer[part])

    def assert_whole(self) -> None:
        assert (self.buffer[~self.inside] == 42).all()


def assert_writes_nothing_beyond(case: Case, dtype: torch.dtype, *, offset: int, device: str) -> None:
    sizes = (0, 1, 3, 1023, 1024, 1025, 1500)
    places = [Guarded(sizes, dtype, offset=offset, device=device) for _ in range(5)]
    for number, place in enumerate(places):
        for view in place.views:
            view.fill_(0 if number > 1 else 0.5)
    params, grads = [Parameter(view) for view in places[0].views], places[1].views
    walk = Walk(case, params)
    keys = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if walk.adam else ("momentum_buffer",)
    walk.rows(grads)
    for place, key in zip(places[2:], keys, strict=False):
        for param, view in zip(params, place.views, strict=True):
            walk.states[param][key] = view
    for _ in range(2):
        assert walk.by_kernel(grads) == len(sizes)
    for place in places:
        place.assert_whole()
    assert all((grad == 0.5).all() for grad in grads)
    assert all((param != 0.5).all() for param in params)


class TestInTheInterpreter:
    __test__ = INTERPRETED

    @pytest.fixture(autouse=True)
    def _as_a_gpu(self) -> Iterator[None]:
        """Mend what the interpreter does unlike a GPU: bfloat16 doesn't round to nearest, 3.7's fma rounds twice."""
        from triton.runtime import interpreter

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpreter, "_convert_float", converted)
            # Triton's names are its interpreter's within a launch already; to set them anew takes most of the time.
            call, ours = (
                interpreter.InterpretedFunction.__call__,
                [k.fn for k in vars(gpu._kernels()).values() if hasattr(k, "fn")],
            )
            patch.setattr(
                interpreter.InterpretedFunction,
                "__call__",
                lambda self, *a, **k: self.rewrite()(*a, **k) if self.fn in ours else call(self, *a, **k),
            )
            if not hasattr(interpreter._interpreter, "fma_fp32"):
                patch.setattr(interpreter.InterpreterBuilder, "create_fma", fused)
            yield

    @pytest.mark.parametrize("case", CASES, ids=str)
    @pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 3), (torch.float64, 2)], ids=str)
    def test_equals_the_rules_in_every_bit(self, case: Case, dtype: torch.dtype, steps: int) -> None:
        ours, _ = walk_both(case, zoo(dtype), gradients(dtype, 200)[:steps])
        assert len(ours.states) == 7

    @pytest.mark.parametrize("case", CASES, ids=str)
    @pytest.mark.parametrize("dtype", gpu.DTYPES[2:], ids=str)
    def test_narrow_dtypes_round_once_an_operation(self, case: Case, dtype: torch.dtype) -> None:
        walk_both(case, zoo(dtype), gradients(dtype, 200)[:2])

    @pytest.mark.parametrize("case", [case for case in CASES if case.optimizer != "SGD"], ids=str)
    def test_steps_counted_on_the_device(self, case: Case) -> None:
        ours, _ = walk_both(case, zoo(torch.float32), gradients(torch.float32, 200)[:2], capturable=True)
        assert ours.states[ours.params[0]]["step"] == 2

    @pytest.mark.parametrize("count", [9, 1_234, 100_000, 3_000_000])
    def test_the_device_takes_powers_of_beta_as_exactly_as_1_minus_beta_allows(self, count: int) -> None:
        params = parameters(3, 5, dtype=torch.float64)
        ours, theirs = (Walk(AMSGRAD, [Parameter(p.clone()) for p in params], capturable=True) for _ in range(2))
        grads = gradients_like(params, 1)[0]
        for walk in (ours, theirs):
            walk.rows(grads)
            for state in walk.states.values():
                state["step"].fill_(count)
        ours.by_kernel(grads)
        theirs.by_rule(grads)
        for (name, one), (_, other) in zip(ours.tensors(), theirs.tensors(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15, msg=lambda m, n=name: f"{n}: {m}")

    def test_options_in_tensors_on_the_host_enter_the_rules_arithmetic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "_is_on_device", lambda value: False)
        monkeypatch.setattr(Walk, "_values", staticmethod(lambda group: group))
        for name in ("tensor lr", "lr that requires grad", "1-element tensor lr", "weight decay"):
            case = next(case for case in CASES if str(case) == f"Adam-{name}")
            walk_both(case, parameters(40), gradients_like(parameters(40), 3))

    @BOTH
    @pytest.mark.parametrize("scale", [0.37, torch.tensor(0.37), torch.tensor(0.37, dtype=torch.float64)], ids=repr)
    @DTYPES
    def test_the_clip_scale_multiplies_the_gradient_first(
        self, case: Case, scale: float | Tensor, dtype: torch.dtype
    ) -> None:
        params = parameters(5, 1500, dtype=dtype)
        walk_both(case, params, gradients_like(params, 2), scale=scale)

    @BOTH
    @pytest.mark.parametrize("capturable", [False, True])
    def test_large_tensors_of_many_blocks_and_empty_ones(self, case: Case, capturable: bool) -> None:
        params = parameters(0, 1, 1023, 1024, 0, 1025, 5 * 1024 + 7, 3 * 1024, 0)
        ours, _ = walk_both(case, params, gradients_like(params, 3), capturable=capturable)
        assert len(ours.states) == len(params)

    @BOTH
    @DTYPES
    @OFFSETS
    def test_writes_nothing_beyond_a_tensor(self, case: Case, dtype: torch.dtype, offset: int) -> None:
        assert_writes_nothing_beyond(case, dtype, offset=offset, device="cpu")

    @BOTH
    def test_reads_every_address_anew_at_each_step(self, case: Case) -> None:
        params = parameters(5, 1100)
        ours, theirs = (Walk(case, [Parameter(p.detach().clone()) for p in params]) for _ in range(2))
        kept = []
        for number, grads in enumerate(gradients_like(params, 5)):
            if number:
                index = number % 2
                for walk in (ours, theirs):
                    param = walk.params[index]
                    kept += [param.data, *walk.states[param].values()]  # so that no address is given out twice
                    param.data = param.data.clone()
                    for key in walk.states[param]:
                        walk.states[param][key] = walk.states[param][key].clone()
            ours.by_kernel(grads)
            theirs.by_rule(grads)
            assert_equal_walks(ours, theirs)

    @BOTH
    def test_options_may_change_from_step_to_step(self, case: Case) -> None:
        params = parameters(5, 40)
        ours, theirs = (Walk(case, [Parameter(p.detach().clone()) for p in params]) for _ in range(2))
        lr = torch.tensor(0.25)
        changes: list[dict[str, Any]] = [
            {},
            {"lr": lr},
            {"lr": 0.0},
            {"maximize": True},
            {"weight_decay": 0, "lr": 0.5},
        ]
        for change, grads in zip(changes, gradients_like(params, 5), strict=True):
            for walk in (ours, theirs):
                walk.groups[0].update(change)
            ours.by_kernel(grads)
            theirs.by_rule(grads)
            assert_equal_walks(ours, theirs)
            lr.mul_(0.5)

    def test_a_tensor_lr_is_read_at_each_step(self) -> None:
        params = parameters(5, 40)
        lr = torch.tensor(0.25)
        ours, theirs = (Walk(NESTEROV, [Parameter(p.detach().clone()) for p in params], lr=lr) for _ in range(2))
        for grads in gradients_like(params, 3):
            ours.by_kernel(grads)
            theirs.by_rule(grads)
            lr.mul_(0.5)
        assert_equal_walks(ours, theirs)

    @BOTH
    def test_sends_only_what_differs(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[int] = []
        monkeypatch.setattr(gpu.GpuTable, "_keep", lambda self, place, *tensors: sent.append(len(tensors)))
        params = parameters(5, 1100)
        walk = Walk(case, params)
        grads = gradients_like(params, 1)[0]
        for _ in range(3):
            sent.clear()
            walk.by_kernel(grads)
        assert len(sent) == (1 if walk.adam else 0)  # Adam's bias corrections
        sent.clear()
        walk.by_kernel([grad.clone() for grad in grads])
        assert len(sent) == (2 if walk.adam else 1)  # and the table

    def test_a_capture_reads_memory_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        params = parameters(5, 1100)
        ours, theirs = (Walk(AMSGRAD, [Parameter(p.detach().clone()) for p in params], capturable=True) for _ in "ab")
        captured: list[Tensor] = []
        for number, grads in enumerate(gradients_like(params, 4)):
            with monkeypatch.context() as patch:
                if number < 2:
                    patch.setattr(gpu, "_stream", lambda device: (0, True))
                ours.by_kernel(grads)
            theirs.by_rule(grads)
            torch.testing.assert_close(ours.table._captured[: len(captured)], captured, rtol=0, atol=0, equal_nan=True)
            captured = [tensor.clone() for tensor in ours.table._captured]
            assert len(captured) == 7 * min(2, number + 1)  # table, scalars and options of host and device, and owners
            for walk in (ours, theirs):
                walk.groups[0]["lr"] *= 2
        assert_equal_walks(ours, theirs)

    def test_a_capture_refuses_steps_on_the_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        params = parameters(5)
        walk = Walk(AMSGRAD, params)
        monkeypatch.setattr(gpu, "_stream", lambda device: (0, True))
        monkeypatch.setattr(gpu, "_counts_on_device", lambda row: False)
        before = [param.detach().clone() for param in params]
        with pytest.raises(RuntimeError, match="capturable=True"):
            walk.by_kernel(gradients_like(params, 1)[0])
        assert all(map(torch.equal, before, params))
        assert walk.states[params[0]]["step"] == 0

    @BOTH
    def test_mixed_dtypes_take_one_launch_each(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        launched = []
        run = gpu._run
        monkeypatch.setattr(gpu, "_run", lambda kernel, *a, **k: launched.append(kernel) or run(kernel, *a, **k))
        params = [Parameter(p.detach().to(dtype)) for dtype in gpu.DTYPES for p in parameters(5, 1500)]
        for _ in range(2):
            ours, _ = walk_both(case, params, gradients_like(params, 1))
        assert launched == ["adam_kernel" if ours.adam else "sgd_kernel"] * 8

    @BOTH
    def test_a_parameter_given_twice_is_updated_twice(self, case: Case) -> None:
        params = parameters(5, 40)
        ours, theirs = (Walk(case, [Parameter(p.detach().clone()) for p in params]) for _ in range(2))
        for grads in gradients_like(params, 3):
            for walk in (ours, theirs):
                walk.rows(grads)
                walk.groups[0]["params"] = [*walk.params, walk.params[0]]
            if not ours.adam:  # two first steps start two buffers; not the rule's part
                for walk in (ours, theirs):
                    for param in walk.params:
                        walk.states[param].setdefault("momentum_buffer", torch.zeros_like(param.detach()))
            ours.by_kernel(grads)
            theirs.by_rule(grads)
        assert_equal_walks(ours, theirs)

    @BOTH
    def test_nan_and_infinity_go_where_the_rules_let_them(self, case: Case) -> None:
        bad = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-30, 1e30, 1.0])
        rows = [[torch.ones(8)], [bad], [torch.ones(8)]]
        for start in (torch.zeros(8), -torch.zeros(8), bad):
            walk_both(case, [Parameter(start)], rows)

    @BOTH
    def test_counts_versions_so_that_autograd_notices(self, case: Case) -> None:
        params = parameters(5, 0)
        before = [param._version for param in params]
        Walk(case, params).by_kernel(gradients_like(params, 1)[0])
        assert [param._version for param in params] == [version + 1 for version in before]

    @pytest.mark.parametrize("wide", [False, True])
    def test_grad_norm(self, wide: bool) -> None:
        table = gpu.GpuTable()
        dtypes = gpu.DTYPES if wide else (torch.float32, torch.bfloat16, torch.float16)
        rng = torch.Generator().manual_seed(0)
        grads = [torch.randn(size, generator=rng).to(dtype) for dtype in dtypes for size in (0, 7, 1024, 3000)]
        expected = torch.linalg.vector_norm(torch.cat([grad.double() for grad in grads]))
        norm = table.grad_norm(grads)
        assert (norm.dtype, norm.shape) == (torch.float64 if wide else torch.float32, ())
        torch.testing.assert_close(norm.double(), expected, rtol=1e-14 if wide else 6e-8, atol=0)
        assert torch.equal(norm, table.grad_norm(grads))

    def test_grad_norm_of_nothing_of_much_and_of_nan(self) -> None:
        table = gpu.GpuTable()
        assert table.grad_norm([torch.zeros(0), torch.zeros(5)]) == 0
        assert table.grad_norm([torch.zeros(0)]) == 0
        assert table.grad_norm([torch.full((5000,), 1e30)]) == pytest.approx(1e30 * 5000**0.5, rel=1e-6)
        assert table.grad_norm([torch.ones(1), torch.full((1,), float("nan"))]).isnan()
        norm = torch.empty(())
        gpu._run("norm_kernel", 1, torch.full((3001,), 4.0, dtype=torch.float64), norm, 3001)
        assert norm == torch.tensor(4.0 * 3001).sqrt()

    @pytest.mark.parametrize(
        ("param", "grad", "state", "taken"),
        [
            (torch.ones(3, 4), torch.ones(3, 4), {}, True),
            (torch.ones(3, 4).t(), torch.ones(3, 4).t(), {"exp_avg": torch.ones(3, 4).t()}, True),
            (torch.ones(3, 4).t(), torch.ones(4, 3), {}, False),
            (torch.ones(3, 4).t(), torch.ones(3, 4).t(), {"exp_avg": torch.ones(4, 3)}, False),
            (torch.ones(1, 4), torch.ones(4, 1).t(), {"momentum_buffer": torch.ones(1, 4)}, True),
            (torch.ones(3), torch.ones(3), {"momentum_buffer": None}, True),
            (torch.ones(3), torch.ones(3), {"step": torch.tensor(1)}, True),
            (torch.ones(3), torch.ones(2), {}, False),
            (torch.ones(3), torch.ones(3, dtype=torch.float64), {}, False),
            (torch.ones(3), torch.ones(3), {"exp_avg": torch.ones(3).bfloat16()}, False),
            (torch.ones(3), torch.ones(3), {"exp_avg": torch.ones(2)}, False),
            (torch.ones(20)[::2], torch.ones(20)[::2], {}, False),
            (torch.ones(1).expand(3), torch.ones(1).expand(3), {}, False),
            (torch.ones(3), torch.ones(3).to_sparse(), {}, False),
            (torch.ones(3).to_sparse(), torch.ones(3).to_sparse(), {}, False),
            (torch.ones(3), torch._neg_view(torch.ones(3)), {}, False),
            (torch.ones(3), torch.ones(3, device="meta"), {}, False),
            (torch.ones(3), torch.ones(3).as_subclass(type("Sub", (Tensor,), {})), {}, False),
            (torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.complex64), {}, False),
            (torch.ones(3, dtype=torch.int32), torch.ones(3, dtype=torch.int32), {}, False),
        ],
    )
    def test_takes(self, param: Tensor, grad: Tensor, state: dict[str, Tensor], taken: bool) -> None:
        assert gpu.takes(param, grad, state) is taken


def converted(data: Any, source: Any, target: Any, rounding: Any) -> Any:
    """float32 to bfloat16 to nearest, and back."""
    import triton.language as tl

    values = np.ascontiguousarray(data)
    if (source, target) == (tl.float32, tl.bfloat16):
        bits = torch.from_numpy(values.reshape(-1)).bfloat16().view(torch.int16).numpy().view(np.uint16)
        return bits.reshape(data.shape)
    assert (source, target) == (tl.bfloat16, tl.float32)
    return (values.astype(np.uint32) << 16).view(np.float32).reshape(data.shape)


def fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""
    from triton.runtime.interpreter import TensorHandle

    libm, single = ctypes.CDLL(None), z.data.dtype == np.float32
    function, kind = (libm.fmaf, ctypes.c_float) if single else (libm.fma, ctypes.c_double)
    function.restype, function.argtypes = kind, [kind] * 3
    with np.errstate(all="ignore"):
        results = np.frompyfunc(function, 3, 1)(x.data, y.data, z.data)
    return TensorHandle(np.asarray(results).astype(z.data.dtype), z.dtype.scalar)


class TestOutsideTheInterpreter:
    __test__ = not INTERPRETED

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_in_tritons_interpreter(self, pytestconfig: pytest.Config) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::TestInTheInterpreter"]
        # Of lanes beyond a tensor's end the kernels may make anything.
        command += ["-W", "ignore::RuntimeWarning:triton.runtime.interpreter"]
        env = os.environ | sample.one_in(4, pytestconfig) | {"TRITON_INTERPRET": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
        assert "skipped: 0" in done.stdout

    @pytest.mark.parametrize("kernel", ["sgd_kernel", "adam_kernel"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    def test_compiles_for_an_h100_to_ieee_arithmetic_and_wide_reads(self, kernel: str, dtype: torch.dtype) -> None:
        ptx = compiled(kernel, dtype=dtype, aligned=True, size=gpu.BLOCK)
        reads, writes = (r"ld\.global\.v2\.b64", r"st\.global\.v2\.b64") if dtype.itemsize == 8 else (
            r"ld\.global\.v4\.b32", r"st\.global\.v4\.b32")  # fmt: skip
        n_read, n_written = (3, 2) if kernel == "sgd_kernel" else (5, 4)
        per_thread = gpu.BLOCK * dtype.itemsize // 16 // 128
        assert (len(re.findall(reads, ptx)), len(re.findall(writes, ptx))) == (
            n_read * per_thread,
            n_written * per_thread,
        )
        assert_ieee(ptx)

    @pytest.mark.parametrize("kernel", ["adam_scalars_kernel", "norm_kernel", "squares_kernel"])
    def test_the_other_kernels_compile_for_an_h100(self, kernel: str) -> None:
        constants = {"dtype": torch.float32, "aligned": False, "size": gpu.BLOCK} if kernel == "squares_kernel" else {}
        assert_ieee(compiled(kernel, **constants))

    def test_triton_is_imported_only_for_a_gpus_parameters(self) -> None:
        code = (
            "import sys, torch, optim_core.gpu as gpu\n"
            "assert not gpu.takes(torch.ones(3), torch.ones(3), {})\n"
            "assert 'triton' not in sys.modules\n"
            "assert gpu.available() and 'triton' in sys.modules\n"
            "assert not gpu.takes(torch.ones(3), torch.ones(3), {})\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_without_triton_it_is_not_available(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "triton", None)
        monkeypatch.delitem(sys.modules, "optim_core.gpu_kernels", raising=False)
        monkeypatch.delattr("optim_core.gpu_kernels", raising=False)
        monkeypatch.setattr(gpu, "_kernels", gpu._kernels.__wrapped__)
        assert not gpu.available()


def compiled(kernel: str, **constants: Any) -> str:
    """The PTX of a kernel, once ptxas has taken it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(gpu._kernels(), kernel)
    if "dtype" in constants:
        constants["dtype"] = getattr(triton.language, str(constants["dtype"]).removeprefix("torch."))
    kinds = {"table": "*i64", "owners": "*i64", "norm": "*fp32", "n": "i32"} | dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "*fp64") for name in function.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind[0] == "*"}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    assert result.asm["cubin"]
    return str(result.asm["ptx"])


def assert_ieee(ptx: str) -> None:
    """No approximation, no flushed denormals, and nothing that may be contracted."""
    assert (
        re.findall(r"\b\w+\.(?:approx|full|ftz)\S*|\b\w+\.rn\.ftz\S*|\b(?:mul|add|sub|fma|div|sqrt)\.f\d\d\b", ptx)
        == []
    )


NOT_AS_TORCH = ("requires grad", "tensor betas")  # the docstrings of `SGD` and `rules.adam_update` say why


# Not Adam of float16: a last bit of exp_avg_sq, where it is denormal, may be half of it.
COMPARABLE = [
    (case, dtype)
    for dtype in gpu.DTYPES
    for case in CASES
    if not any(name in case.name for name in NOT_AS_TORCH) and (case.optimizer == "SGD" or dtype != torch.float16)
]


@on_gpu
class TestOnAGpu:
    @pytest.mark.parametrize(("case", "dtype"), COMPARABLE, ids=str)
    def test_equals_torch(self, case: Case, dtype: torch.dtype) -> None:
        """SGD in every bit; Adam, whose divisions and products torch orders differently there, to 4 ulp a step."""
        ours_params, params = ([Parameter(p.detach().cuda(), p.requires_grad) for p in zoo(dtype)] for _ in "ab")
        ours, theirs = Walk(case, ours_params), build(case, params, ours=False)
        for row in gradients(dtype, 200)[:10]:
            grads = [None if grad is None else grad.cuda() for grad in row]
            for mine, param, grad in zip(ours_params, params, grads, strict=True):
                mine.data.copy_(param.data)
                ours.states.pop(mine, None)
                if theirs.state.get(param):
                    ours.states[mine] = {
                        key: value.clone() for key, value in theirs.state[param].items() if value is not None
                    }
                param.grad = grad
            before = [param.detach().clone() for param in params]
            taken = {row.param for row in ours.rows(grads)}
            ours.by_kernel(grads)
            theirs.step()
            for mine, param, old in zip(ours_params, params, before, strict=True):
                if mine in taken:
                    size = torch.maximum(torch.maximum(old.abs(), param.abs()), (param - old).abs()).double()
                    allowed = size * torch.finfo(dtype).eps * (4 if ours.adam else 0)
                    close = (mine.double() - param.double()).abs() <= allowed
                    assert (close | (mine.isnan() & param.isnan()) | (mine == param)).all()

    @BOTH
    @DTYPES
    @OFFSETS
    def test_writes_nothing_beyond_a_tensor(self, case: Case, dtype: torch.dtype, offset: int) -> None:
        assert_writes_nothing_beyond(case, dtype, offset=offset, device="cuda")

    @BOTH
    def test_a_captured_graph_replays_with_the_lr_of_then(self, case: Case) -> None:
        lr, scale = torch.tensor(0.1, device="cuda"), torch.tensor(0.5, device="cuda")
        sizes = (0, 5, 1500, 40_000)
        graphed, eager = (Walk(case, [Parameter(p.detach().cuda()) for p in parameters(*sizes)], lr=lr) for _ in "ab")
        for walk in (graphed, eager):
            for group in walk.groups:
                group["capturable"] = True
        rows = gradients_like(graphed.params, 8)
        static = [grad.clone() for grad in rows[0]]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for grads in rows[:2]:
                torch._foreach_copy_(static, grads)
                graphed.by_kernel(static, scale=scale)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            graphed.by_kernel(static, scale=scale)
        other = Walk(case, [Parameter(p.detach().cuda()) for p in parameters(*sizes[::-1])])
        other.table = graphed.table
        for grads in rows[2:]:
            lr.mul_(0.5)
            torch._foreach_copy_(static, grads)
            graph.replay()
            other.by_kernel(gradients_like(other.params, 1)[0])  # leaves the graph's memory alone
        lr.fill_(0.1)
        for number, grads in enumerate(rows):
            lr.mul_(0.5 if number >= 2 else 1.0)
            eager.by_kernel(grads, scale=scale)
        assert_same_bits(graphed.tensors(), eager.tensors())

    @BOTH
    @pytest.mark.parametrize("capturable", [False, True])
    def test_never_waits_for_the_device(self, case: Case, capturable: bool) -> None:
        lr, scale = torch.tensor(0.1, device="cuda"), torch.tensor(0.5, device="cuda")
        params = [Parameter(p.detach().cuda()) for p in parameters(0, 5, 40_000)]
        walk = Walk(case, params, capturable=capturable)
        rows = gradients_like(params, 4)
        for options in ({}, {"lr": lr, "weight_decay": 0.01}, {"lr": 0.1}):
            walk.groups[0].update(options)
            torch.cuda.set_sync_debug_mode("error")
            try:
                for grads in rows:
                    walk.by_kernel(grads, scale=scale)
                    walk.table.grad_norm(grads)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def test_grad_norm(self) -> None:
        grads = [grad.detach().cuda() for grad in parameters(0, 7, 1024, 3_000_000)]
        expected = torch.linalg.vector_norm(torch.cat([grad.double() for grad in grads]))
        norms = [gpu.GpuTable().grad_norm(grads) for _ in range(5)]
        torch.testing.assert_close(norms[0].double(), expected, rtol=6e-8, atol=0)
        assert all(torch.equal(norm, norms[0]) for norm in norms)

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no GPU beside the first")
    def test_several_devices(self) -> None:
        params = [Parameter(p.detach().to(f"cuda:{i % 2}")) for i, p in enumerate(parameters(5, 1500, 1025, 40))]
        grads = gradients_like(params, 1)[0]
        one, each = Walk(AMSGRAD, params), [Walk(AMSGRAD, [Parameter(p.detach().clone())]) for p in params]
        one.by_kernel(grads)
        for walk, param, grad in zip(each, params, grads, strict=True):
            walk.by_kernel([grad])
            assert torch.equal(walk.params[0], param)
        expected = torch.linalg.vector_norm(torch.cat([grad.double().cpu() for grad in grads]))
        torch.testing.assert_close(one.table.grad_norm(grads).double().cpu(), expected, rtol=2e-7, atol=0)
