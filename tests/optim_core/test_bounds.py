"""A step writes its parameters and their state, to the last element, and nothing beside them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from optim_core import native
from tests.optim_core.pairs import bits_of, level, make, needs_kernel, takes_all, threads

pytestmark = needs_kernel

SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 4095, 4096, 4097, 8191, 8193, 20_011)
GUARD = 37  # odd, so that no tensor starts at a multiple of a vector's bytes
SENTINEL = 12345.0  # in every dtype a number that no update here gives
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LEVELS = () if native.kernel is None else native.kernel.levels


class Memory:
    """Tensors cut from one buffer, with sentinels before, between and behind them."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.buffer = torch.full((sum(SIZES) + GUARD * (len(SIZES) + 1),), SENTINEL, dtype=dtype)
        self.is_guard = torch.ones_like(self.buffer, dtype=torch.bool)
        self.cuts: list[Tensor] = []
        start = GUARD
        for size in SIZES:
            self.cuts.append(self.buffer[start : start + size])
            self.is_guard[start : start + size] = False
            start += size + GUARD

    def filled(self, seed: int) -> list[Tensor]:
        rng = torch.Generator().manual_seed(seed)
        for cut in self.cuts:
            cut.copy_(torch.rand(cut.shape, generator=rng) + 0.5)
        return self.cuts

    def check(self) -> None:
        sentinel = torch.full_like(self.buffer, SENTINEL)
        assert torch.equal(bits_of(self.buffer)[self.is_guard], bits_of(sentinel)[self.is_guard])


CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1}),
    ("AdamW", {"amsgrad": True, "maximize": True}),
]


def guarded(kind: str, options: dict[str, Any], dtype: torch.dtype) -> tuple[torch.optim.Optimizer, list[Memory]]:
    """An optimizer whose parameters, gradients and moments are all cut from guarded buffers."""
    weights, grads = Memory(dtype), Memory(dtype)
    params = [Parameter(cut) for cut in weights.filled(1)]
    optimizer = make("native", kind, params, lr=0.01, **options)
    for param, grad in zip(params, grads.filled(2), strict=True):
        param.grad = grad
    optimizer.step()
    memories = [weights, grads]
    for key in sorted({key for param in params for key in optimizer.state[param]} - {"step"}):
        own = Memory(dtype)
        for param, cut in zip(params, own.cuts, strict=True):
            optimizer.state[param][key] = cut.copy_(optimizer.state[param][key])
        memories.append(own)
    return optimizer, memories


@pytest.mark.parametrize("n_threads", [1, 2], ids=["alone", "two threads"])
@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_nothing_beside_the_tensors_is_written(
    *, kind: str, options: dict[str, Any], dtype: torch.dtype, name: str, n_threads: int
) -> None:
    optimizer, memories = guarded(kind, options, dtype)
    grads, wide = bits_of(memories[1].buffer), dtype in {torch.float32, torch.float64}
    with level(name), threads(n_threads):
        assert takes_all(optimizer) == (wide or (kind != "SGD" and "weight_decay" not in options))
        for measured in (False, True):
            before = [bits_of(memory.buffer) for memory in memories]
            if measured:
                optimizer.measure_next_step()
            optimizer.clip_grad_norm(10.0)
            optimizer.step()
            for memory in memories:
                memory.check()
            assert torch.equal(bits_of(memories[1].buffer), grads)
            for index, memory in enumerate(memories):
                changed = (bits_of(memory.buffer) != before[index])[~memory.is_guard]
                if index != 1 and wide:  # a narrow dtype often rounds back
                    assert float(changed.double().mean()) > 0.5


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("size", SIZES[1:])
def test_the_last_element_is_written_too(name: str, size: int) -> None:
    for kind in ("SGD", "Adam"):
        param = Parameter(torch.ones(size))
        optimizer = make("native", kind, [param], lr=0.1)
        with level(name):
            for _ in range(2):
                before = param.detach().clone()
                param.grad = torch.ones(size)
                optimizer.step()
                assert bool((param < before).all())


def test_what_has_no_gradient_keeps_its_state() -> None:
    still, moving = Parameter(torch.ones(100)), Parameter(torch.ones(100))
    optimizer = make("native", "Adam", [still, moving])
    still.grad, moving.grad = torch.ones(100), torch.ones(100)
    optimizer.step()
    before = {key: bits_of(value) for key, value in optimizer.state[still].items()}
    for _ in range(2):
        still.grad, moving.grad = None, torch.ones(100)
        optimizer.step()
    assert all(torch.equal(bits_of(value), before[key]) for key, value in optimizer.state[still].items())
    assert [float(optimizer.state[param]["step"]) for param in (still, moving)] == [1, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_count_between_others_is_counted_alone(dtype: torch.dtype) -> None:
    counts = torch.full((7,), 3.0, dtype=dtype)
    params = [Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = make("native", "Adam", params)
    for param in params:
        param.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[params[0]]["step"], optimizer.state[params[1]]["step"] = counts[2], counts[4]
    assert takes_all(optimizer)
    optimizer.step()
    assert counts.tolist() == [3, 3, 4, 3, 4, 3, 3]
