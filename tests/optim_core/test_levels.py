"""The kernel's instruction sets: one result where they fuse, torch's where they don't, and the one that torch uses."""

import os
import shutil
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import optim_core
from optim_core import native
from tests.optim_core.builds import PYTEST, ROOT
from tests.optim_core.cases import CASES, Case, build, run
from tests.optim_core.forks import Forks, forks
from tests.optim_core.pairs import Bits, assert_equal, level, make, needs_kernel, written
from tests.optim_core.sample import one_in

SIZES = (*range(1, 71), 4095, 4096, 4097, 3 * 4096 + 5)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LEVELS = () if native.kernel is None else native.kernel.levels


@cache
def tails(dtype: torch.dtype) -> tuple[list[Tensor], list[list[Tensor | None]]]:
    """Values of every size around a vector and a block, and gradients for five steps with what is not a number."""
    rng = torch.Generator().manual_seed(7)
    values = [torch.randn(size, generator=rng).to(dtype) for size in SIZES]
    rows: list[list[Tensor | None]] = []
    for step in range(5):
        scale = 10.0 ** torch.randint(-5, 3, (len(SIZES),), generator=rng)
        row = [torch.randn(size, generator=rng) * scale[index] for index, size in enumerate(SIZES)]
        for index, bad in enumerate((torch.nan, torch.inf, -torch.inf, -0.0, 1e-42)):
            row[10 * index + step][-1] = bad
        rows.append([None if (step + index) % 9 == 8 else grad.to(dtype) for index, grad in enumerate(row)])
    return values, rows


def trained(case: Case, dtype: torch.dtype, name: str) -> Bits:
    values, rows = tails(dtype)
    params = [Parameter(value.clone()) for value in values]
    optimizer = build(case, params, ours=True)
    with level(name):
        run(optimizer, params, rows)
    return written(optimizer, params)


@needs_kernel
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_levels_that_fuse_give_the_same_bits(case: Case, dtype: torch.dtype) -> None:
    first, *others = [name for name in LEVELS if name != "portable"] or LEVELS
    expected = trained(case, dtype, first)
    for other in others:
        assert_equal(trained(case, dtype, other), expected)


def normal(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@needs_kernel
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_levels_sum_squares_alike(dtype: torch.dtype) -> None:
    """In many groups, because in a long sum the last bit of a square is lost."""
    results = []
    for name in LEVELS:
        values = normal(2 * 4096 + 5).to(dtype)
        params = [Parameter(value) for value in (*values[:4096].split(16), values)]
        optimizer = make("native", "Adam", [{"params": [param]} for param in params])
        for param in params:
            param.grad = param.detach() * 3
        with level(name):
            optimizer.step()
            sums, left = optimizer._table.grad_squares(optimizer.param_groups, 1)
        assert left is None
        results.append(sums)
    expected = [float((param.grad.double() ** 2).sum()) for param in params]
    assert results[0] == pytest.approx(expected, rel=1e-12)
    assert all(sums == results[0] for sums in results)


@pytest.fixture(scope="module")
def loaded() -> Iterator[Forks]:
    """With all that is slow to import: torch's own optimizers take Dynamo."""
    with forks("torch._dynamo", "pytest") as made:
        yield made


PARITY = f"""
import sys
import optim_core
import pytest

print(optim_core.backend(), flush=True)
files = [f"tests/optim_core/test_{{name}}.py" for name in ("parity", "state_dict")]
sys.exit(pytest.main([*{PYTEST}, *files]))
"""


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "backend"),
    [
        ({"ATEN_CPU_CAPABILITY": "default"}, "native (portable)"),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, "native (avx2)"),
        ({"TRAIND_KERNEL": "torch"}, "torch"),
    ],
    ids=str,
)
def test_the_bits_are_torchs_at_the_level_torch_uses(
    environment: dict[str, str], backend: str, loaded: Forks, pytestconfig: pytest.Config
) -> None:
    if "avx2" not in LEVELS:
        backend = backend.replace("avx2", "portable")
    done = loaded.python(ROOT, PARITY, warn="error", **environment, **one_in(8, pytestconfig))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.startswith(f"{backend}\n")
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


def test_where_there_is_a_compiler_the_kernel_is_built_and_takes_torchs_level() -> None:
    if os.environ.get("TRAIND_KERNEL") == "torch":
        assert optim_core.backend() == "torch"
    elif os.environ.get("CI") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"):
        expected = {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability(), "portable")
        assert optim_core.backend() == f"native ({expected})"


@needs_kernel
def test_a_level_that_this_processor_lacks_is_an_error() -> None:
    assert native.kernel is not None
    with pytest.raises(ValueError, match="this processor has no level 'avx1024'"):
        native.kernel.use("avx1024")
    assert native.kernel.levels[-1] == "portable"
