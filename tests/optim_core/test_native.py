"""The kernel against the plain rules: every bit, on whatever hypothesis comes up with."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from tests.optim_core.pairs import Bits, assert_equal, make, needs_kernel, takes_all, threads, written

pytestmark = needs_kernel

BAD = (torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-40, -1e-45, 3e38, -3e38, 6e-8, 65504.0)
LARGE = 33_000  # beyond what one thread does alone

rates = st.sampled_from([0.0, 1e-300, 1e-45, 1e-8, 1e-3, 0.1, 1.0, 3e4, 1e10, 1e20, 1e21, 1e39])
decays = st.sampled_from([0, 0.0, 1e-300, 1e-4, 0.1, 1.5, 1e20])
momenta = st.sampled_from([0, 0.0, 1e-45, 0.5, 0.9, 0.999999, 1.0, 1.01, 30.0])
near_one = st.sampled_from([0.0, 1e-9, 0.3, 0.5, 0.9, 0.999, 0.9999999, 1 - 2.0**-53])
sgd_options = st.fixed_dictionaries(
    {
        "lr": rates,
        "momentum": momenta,
        "dampening": st.sampled_from([0, 0.0, 0.3, 1, -2.0]),
        "weight_decay": decays,
        "nesterov": st.booleans(),
        "maximize": st.booleans(),
    }
)
adam_options = st.fixed_dictionaries(
    {
        "lr": rates,
        "betas": st.tuples(near_one, near_one),
        "eps": st.sampled_from([0.0, 0, 1e-300, 1e-45, 1e-8, 1e-3, 1.0, 1e20]),
        "weight_decay": decays,
        "amsgrad": st.booleans(),
        "maximize": st.booleans(),
        "decoupled_weight_decay": st.booleans(),
    }
)
shapes = st.one_of(
    st.lists(st.integers(0, 6), max_size=4).map(tuple),
    st.integers(1, 70).map(lambda n: (n,)),
    st.sampled_from([(4095,), (4096,), (4097,), (LARGE,), (5, 4097)]),
)
dtypes = st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])
tensors = st.tuples(shapes, dtypes, st.sampled_from(["as it is", "transposed", "channels last", "every other"]))


def values(shape: tuple[int, ...], dtype: torch.dtype, rng: torch.Generator, *, bad: bool) -> Tensor:
    """Over sixty decades or of one size; with `bad`, some are not finite, zero or at the edge of the dtype."""
    found = torch.randn(shape, generator=rng, dtype=torch.float64)
    if bad:
        found = found * 10.0 ** torch.randint(-30, 30, shape, generator=rng)
        chosen = torch.tensor(BAD, dtype=torch.float64)[torch.randint(len(BAD), shape, generator=rng)]
        found = torch.where(torch.rand(shape, generator=rng) < 0.2, chosen, found)
    return found.to(dtype)


def laid_out(value: Tensor, layout: str) -> Tensor:
    """The same values in memory of their own, in another order."""
    if layout == "channels last" and value.dim() == 4:
        return value.contiguous(memory_format=torch.channels_last)
    if layout == "transposed" and value.dim() >= 2:
        return value.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "every other" and value.dim() >= 1:
        return value.repeat_interleave(2, dim=-1)[..., ::2]
    return value.clone()


def walk(who: str, kind: str, groups: list[dict[str, Any]], made: list[list[Any]], **plan: Any) -> list[Bits | str]:
    """What each step leaves, or the error with which it ends."""
    rng = torch.Generator().manual_seed(plan["seed"])
    params = [
        [Parameter(laid_out(values(shape, dtype, rng, bad=plan["bad"]), layout)) for shape, dtype, layout in group]
        for group in made
    ]
    flat = [param for group in params for param in group]
    optimizer = make(who, kind, [group | {"params": own} for group, own in zip(groups, params, strict=True)])
    # Without memory, the sign of a zero in torch's lerp depends on its place; see Adam's docstring.
    signed_zero = all(group.get("betas", (1.0,))[0] > 1e-6 for group in groups)
    seen: list[Bits | str] = []
    for step in range(plan["steps"]):
        for index, param in enumerate(flat):
            grad = laid_out(values(tuple(param.shape), param.dtype, rng, bad=plan["bad"]), plan["grads"])
            param.grad = None if (step + index) % plan["missing"] == plan["missing"] - 1 else grad
        if plan["scale"] is not None:  # a clip's factor, the same for both; their norms may differ in the last bit
            optimizer._scales = [plan["scale"]] * len(groups)
        try:
            optimizer.step()
        except RuntimeError as error:
            return [*seen, str(error)]
        seen.append(written(optimizer, flat, signed_zero=signed_zero))
    return seen


plans = {
    "data": st.data(),
    "seed": st.integers(0, 2**32 - 1),
    "bad": st.booleans(),
    "steps": st.integers(2, 5),
    "missing": st.integers(2, 7),
    "grads": st.sampled_from(["as it is", "transposed", "channels last", "every other"]),
    "scale": st.sampled_from([None, None, 0.0, 1e-30, 0.3, 0.5, torch.nan]),
    "n_threads": st.sampled_from([1, 2]),
}


@pytest.mark.parametrize(("kind", "options"), [("SGD", sgd_options), ("Adam", adam_options)], ids=["SGD", "Adam"])
@settings(max_examples=150)
@given(**plans)
def test_native_equals_the_plain_rules_in_every_bit(
    *, kind: str, options: st.SearchStrategy[dict[str, Any]], data: st.DataObject, n_threads: int, **plan: Any
) -> None:
    groups = data.draw(st.lists(options, min_size=1, max_size=3))
    made = [data.draw(st.lists(tensors, min_size=1, max_size=4)) for _ in groups]
    with threads(n_threads):
        ours = walk("native", kind, groups, made, **plan)
        expected = walk("plain", kind, groups, made, **plan)
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        if isinstance(one, str) or isinstance(other, str):
            assert one == other
        else:
            assert_equal(one, other)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_kernel_takes_what_is_dense(kind: str, dtype: torch.dtype) -> None:
    """Else the other tests here compare the plain rules with themselves."""
    shapes: list[tuple[int, ...]] = [(), (0,), (3, 4), (2, 3, 4, 5)]
    params = [Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
    params.append(Parameter(torch.ones(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last)))
    optimizer = make("native", kind, params, **({"momentum": 0.9} if kind == "SGD" else {"amsgrad": True}))
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    narrow = dtype in {torch.bfloat16, torch.float16}
    assert takes_all(optimizer) == (kind != "SGD" or not narrow)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(
    "option",
    [
        {"betas": (1.0, 0.999)},
        {"betas": (0.9, 1.5)},
        {"betas": (0.9, 1e300)},
        {"lr": 1e39},
        {"lr": 1e300},
        {"weight_decay": 1e39},
        {"dampening": 1e39},
        {"lr": "0.1"},
        {"lr": None},
    ],
    ids=str,
)
def test_an_option_of_a_group_that_cannot_be_is_the_plain_rules_error(kind: str, option: dict[str, Any]) -> None:
    def error(who: str) -> tuple[type[BaseException], str] | Bits:
        param = Parameter(torch.ones(3))
        optimizer = make(who, kind, [param], **({"momentum": 0.9} if kind == "SGD" else {}))
        param.grad = torch.ones(3)
        optimizer.step()
        optimizer.param_groups[0].update(option)
        try:
            optimizer.step()
        except Exception as found:
            return type(found), str(found)
        return written(optimizer, [param])

    ours, expected = error("native"), error("plain")
    if isinstance(ours, dict) and isinstance(expected, dict):
        assert_equal(ours, expected)
        assert not option.keys() & {"lr"}
    else:
        assert ours == expected


@pytest.mark.parametrize("step", [-1.0, -5.0, float("nan")])
def test_a_step_count_that_cannot_be_is_the_plain_rules_error_or_result(step: float) -> None:
    results: list[Any] = []
    for who in ("native", "plain", "torch"):
        param = Parameter(torch.ones(3))
        optimizer = make(who, "Adam", [param])
        param.grad = torch.ones(3)
        optimizer.step()
        optimizer.state[param]["step"].fill_(step)
        try:
            optimizer.step()
            results.append([float(param[0].isnan()), float(optimizer.state[param]["step"])])
        except (ZeroDivisionError, RuntimeError) as error:
            results.append(str(error))
    assert repr(results[0]) == repr(results[1]) == repr(results[2])


@pytest.mark.parametrize("eps", [1e-8, 1e-5, 1e-3, 3.3e-3, 0.7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_eps_is_rounded_to_a_narrow_dtype_as_torch_rounds_it(dtype: torch.dtype, eps: float) -> None:
    rng = torch.Generator().manual_seed(0)
    grads = [torch.randn(4097, generator=rng).mul_(eps * 3).to(dtype) for _ in range(3)]
    results = []
    for who in ("native", "torch"):
        param = Parameter(torch.zeros(4097, dtype=dtype))
        optimizer = make(who, "Adam", [param], eps=eps)
        for grad in grads:
            param.grad = grad
            optimizer.step()
        results.append(written(optimizer, [param]))
    assert_equal(*results)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 12345, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_root_is_divided_as_ieee_does(dtype: torch.dtype, step: int) -> None:
    """The kernel divides by the bias correction's root without the divider: over many decades, and at the edges."""
    rng = torch.Generator().manual_seed(step)
    second = torch.rand(300_000, generator=rng, dtype=torch.float64) * 3 + 1
    second[:50_000] *= 10.0 ** torch.randint(-300, 300, (50_000,), generator=rng)
    limits = torch.finfo(dtype)
    second[:6] = torch.tensor([0.0, torch.inf, torch.nan, limits.max, limits.tiny, limits.smallest_normal * limits.eps])
    results = []
    for who in ("native", "plain"):
        param = Parameter(torch.zeros(300_000, dtype=dtype))
        optimizer = make(who, "Adam", [param], lr=1.0, betas=(0.0, 1 - 2.0**-20), eps=0.0)
        optimizer.state[param] = {
            "step": torch.tensor(float(step - 1)),
            "exp_avg": torch.ones(300_000, dtype=dtype),
            "exp_avg_sq": second.to(dtype, copy=True),
        }
        param.grad = torch.ones(300_000, dtype=dtype) * 1e-30
        assert who == "plain" or takes_all(optimizer)
        optimizer.step()
        results.append(written(optimizer, [param]))
    assert_equal(*results)
