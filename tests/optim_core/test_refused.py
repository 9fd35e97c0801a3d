"""What cannot be is an error that says so, and the step that meets it has written nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.optim_core.pairs import assert_equal, bits_of, make, written
from tests.optim_core.test_table import ADAM, SGD, Edit, Optimizer, give, set_options


def refuse_gradient(change: Callable[[Tensor], Tensor]) -> Edit:
    def edit(optimizer: Optimizer, params: list[Parameter]) -> None:
        assert params[-1].grad is not None
        params[-1].grad.data = change(params[-1].grad)

    return edit


def lose(key: str) -> Edit:
    def edit(optimizer: Optimizer, params: list[Parameter]) -> None:
        del optimizer.state[params[-1]][key]

    return edit


REFUSED: dict[str, tuple[Edit, type[Exception], str]] = {
    "shrunk": (refuse_gradient(lambda grad: grad[:2].clone()), RuntimeError, r"shape torch.Size\(\[2\]\)"),
    "grown": (refuse_gradient(lambda grad: torch.cat([grad, grad])), RuntimeError, "nothing was updated"),
    "reshaped": (refuse_gradient(lambda grad: grad[None]), RuntimeError, "nothing was updated"),
    "double": (
        refuse_gradient(Tensor.double),
        RuntimeError,
        "has dtype torch.float64, the parameter has torch.float32",
    ),
    "half": (refuse_gradient(Tensor.half), RuntimeError, "has dtype torch.float16"),
    "integers": (refuse_gradient(Tensor.int), RuntimeError, "has dtype torch.int32"),
    "complex": (refuse_gradient(lambda grad: torch.complex(grad, grad)), RuntimeError, "has dtype torch.complex64"),
    "parameter grew": (
        lambda _, params: setattr(params[-1], "data", torch.ones(9)),
        RuntimeError,
        "nothing was updated",
    ),
    "parameter is double": (
        lambda _, params: setattr(params[-1], "data", torch.ones(5, dtype=torch.float64)),
        RuntimeError,
        "has dtype torch.float32, the parameter has torch.float64",
    ),
    "lr a str": (set_options(lr="fast"), TypeError, "str"),
    "no params": (
        lambda optimizer, _: optimizer.param_groups[0].update(params=None),
        TypeError,
        "'params'|not iterable",
    ),
    "lr gone": (lambda optimizer, _: optimizer.param_groups[0].pop("lr") and None, KeyError, "lr"),
    "exp_avg lost": (lose("exp_avg"), KeyError, "exp_avg"),
    "exp_avg_sq lost": (lose("exp_avg_sq"), KeyError, "exp_avg_sq"),
    "step lost": (lose("step"), KeyError, "step"),
    "amsgrad without its state": (set_options(amsgrad=True), KeyError, "max_exp_avg_sq"),
}
SGD_LACKS = ("exp_avg lost", "exp_avg_sq lost", "step lost", "amsgrad without its state")
WRITES = ("lr a str", "lr gone")  # where the plain rules run, some of it is written before their error, as in torch


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [(*SGD, name) for name in REFUSED if name not in SGD_LACKS] + [(*ADAM, name) for name in REFUSED],
    ids=str,
)
def test_what_cannot_be_is_refused_and_nothing_is_written(kind: str, options: dict[str, Any], name: str) -> None:
    edit, error, words = REFUSED[name]
    params = [Parameter(torch.ones(shape)) for shape in ((70,), (), (5,))]
    optimizer = make("native", kind, params, lr=0.1, **options)
    for step in range(3):
        give(params, step)
        optimizer.step()
    give(params, 3)
    edit(optimizer, params)
    before, gradients_before = written(optimizer, params), [bits_of(param.grad) for param in params]
    with pytest.raises(error, match=words):
        optimizer.step()
    if name not in WRITES:
        assert_equal(written(optimizer, params), before)
    for param, bits in zip(params, gradients_before, strict=True):
        assert torch.equal(bits_of(param.grad), bits)


@pytest.mark.parametrize(("kind", "options"), [("SGD", {"weight_decay": 0.1}), ADAM], ids=["SGD", "Adam"])
def test_a_sparse_gradient_that_cannot_be_leaves_the_dense_ones_unread(kind: str, options: dict[str, Any]) -> None:
    params = [Parameter(torch.ones(shape)) for shape in ((70,), (5,), (3,))]
    optimizer = make("native", kind, params, lr=0.1, **options)
    give(params, 0)
    optimizer.step()
    give(params, 1)
    params[1].grad = torch.ones(5).to_sparse()
    before = written(optimizer, params)
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert_equal(written(optimizer, params), before)
