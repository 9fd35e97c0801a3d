"""Wrong options, parameters and gradients: torch's exception in torch's words, and nothing written."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import optim_core
from tests.optim_core.cases import BAD_OPTIONS

KINDS = pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])


def caught(act: Callable[[], Any]) -> tuple[type[Exception], str]:
    with pytest.raises(Exception) as info:  # noqa: PT011, the peer's exception is the expectation
        act()
    return info.type, str(info.value)


@pytest.mark.parametrize(("kind", "options"), BAD_OPTIONS, ids=str)
def test_bad_options_raise_what_torch_raises(kind: str, options: dict[str, Any]) -> None:
    ours = caught(lambda: getattr(optim_core, kind)([Parameter(torch.ones(2))], **options))
    theirs = caught(lambda: getattr(torch.optim, kind)([Parameter(torch.ones(2))], **options))
    assert ours == theirs


@KINDS
@pytest.mark.parametrize(
    "params",
    [
        lambda: [],
        lambda: torch.ones(2),
        lambda: [1.0],
        lambda: [Parameter(torch.ones(2)) * 2],
        lambda: [{"params": {Parameter(torch.ones(2))}}],
        lambda: [Parameter(torch.ones(2)), "a"],
        lambda: [("named", Parameter(torch.ones(2))), Parameter(torch.ones(2))],
        lambda: [{"params": [p := Parameter(torch.ones(2))]}, {"params": [p]}],
        lambda: [{"params": [Parameter(torch.ones(2))]}, "not a group"],
    ],
    ids=[
        "none",
        "a tensor",
        "a float",
        "not a leaf",
        "a set",
        "a str",
        "half named",
        "in two groups",
        "no group",
    ],
)
def test_bad_parameters_raise_what_torch_raises(kind: str, params: Callable[[], Any]) -> None:
    ours = caught(lambda: getattr(optim_core, kind)(params()))
    theirs = caught(lambda: getattr(torch.optim, kind)(params()))
    assert ours == theirs


@KINDS
def test_differentiable_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(ValueError, match=r"differentiable=True is not supported .* outside autograd"):
        getattr(optim_core, kind)([Parameter(torch.ones(2))], differentiable=True)


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_capturable_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(ValueError, match=r"capturable=True is not supported .* bias correction"):
        getattr(optim_core, kind)([Parameter(torch.ones(2))], capturable=True)


def test_a_refused_option_of_one_group_adds_no_group() -> None:
    optimizer = optim_core.Adam([Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match="capturable"):
        optimizer.add_param_group({"params": [Parameter(torch.ones(2))], "capturable": True})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_adam_refuses_sparse_gradients_as_torch_and_writes_nothing(kind: str) -> None:
    def step(module: Any) -> list[Parameter]:
        dense, sparse = Parameter(torch.ones(3)), Parameter(torch.ones(3))
        dense.grad, sparse.grad = torch.ones(3), torch.ones(3).to_sparse()
        groups = [{"params": [dense]}, {"params": [sparse]}]
        assert caught(getattr(module, kind)(groups).step) == expected
        return [dense, sparse]

    expected = (
        RuntimeError,
        "Adam does not support sparse gradients, please consider SparseAdam instead",
    )
    step(torch.optim)
    assert all(torch.equal(param, torch.ones(3)) for param in step(optim_core))


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"maximize": True}], ids=str
)
def test_sgd_takes_sparse_gradients_as_torch(options: dict[str, Any]) -> None:
    results = []
    for module in (optim_core, torch.optim):
        param = Parameter(torch.ones(4))
        optimizer = module.SGD([param], lr=0.1, **options)
        for values in ([0.0, 2.0, 0.0, 1.0], [3.0, 0.0, 0.0, 1.0]):
            param.grad = torch.tensor(values).to_sparse()
            optimizer.step()
        results.append(param.detach())
    assert torch.equal(*results)
    assert results[0][2] == 1
    assert results[0][3] != 1


def test_sgd_with_decay_refuses_sparse_gradients_as_torch() -> None:
    def step(module: Any) -> tuple[type[Exception], str]:
        param = Parameter(torch.ones(3))
        param.grad = torch.tensor([1.0, 0.0, 0.0]).to_sparse()
        error = caught(module.SGD([param], weight_decay=0.1).step)
        assert torch.equal(param, torch.ones(3))
        return error

    assert step(optim_core) == step(torch.optim)
