"""What autograd and the modes around a step see: the same as with torch's in-place operations."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.optim_core.pairs import assert_equal, make, written

pytestmark = pytest.mark.usefixtures("ieee_root")

KINDS = pytest.mark.parametrize(
    ("kind", "options"), [("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {})], ids=["SGD", "momentum", "Adam"]
)
BOTH = ("native", "torch")


def warmed(who: str, kind: str, options: dict[str, Any]) -> tuple[Parameter, torch.optim.Optimizer]:
    """After two steps, so that the kernel takes the third."""
    param = Parameter(torch.linspace(-1, 1, 20))
    optimizer = make(who, kind, [param], lr=0.1, **options)
    for _ in range(2):
        param.grad = torch.ones(20)
        optimizer.step()
    return param, optimizer


@KINDS
@pytest.mark.parametrize("who", BOTH)
def test_backward_through_a_weight_that_a_step_changed_is_an_error(
    who: str, kind: str, options: dict[str, Any]
) -> None:
    param, optimizer = warmed(who, kind, options)
    loss = param.square().sum()
    version = param._version
    param.grad = torch.ones(20)
    optimizer.step()
    assert param._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@KINDS
@pytest.mark.parametrize("who", BOTH)
def test_a_weight_without_a_gradient_keeps_its_version(who: str, kind: str, options: dict[str, Any]) -> None:
    param, optimizer = warmed(who, kind, options)
    loss = param.square().sum()
    param.grad = None
    optimizer.step()
    loss.backward()
    assert param.grad is not None


@KINDS
def test_views_of_a_weight_see_that_it_moved(kind: str, options: dict[str, Any]) -> None:
    param, optimizer = warmed("native", kind, options)
    view = param.detach()[3:9]
    version, before = view._version, view.clone()
    param.grad = torch.ones(20)
    optimizer.step()
    assert view._version > version
    assert bool((view < before).all())


@KINDS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode], ids=lambda m: m.__name__)
def test_a_step_in_any_mode_moves_as_in_torch(kind: str, options: dict[str, Any], mode: Any) -> None:
    results = []
    for who in BOTH:
        param, optimizer = warmed(who, kind, options)
        with mode():
            optimizer.step()
            enabled = torch.is_grad_enabled()
        assert enabled == (mode is torch.enable_grad)
        assert param.requires_grad
        assert param.is_leaf
        results.append(written(optimizer, [param]))
    assert_equal(*results)


@KINDS
def test_parameters_made_in_inference_mode(kind: str, options: dict[str, Any]) -> None:
    results = []
    for who in BOTH:
        with torch.inference_mode():
            param, optimizer = warmed(who, kind, options)
            optimizer.step()
        results.append(written(optimizer, [param]))
    assert_equal(*results)


@pytest.mark.parametrize("who", BOTH)
def test_the_first_step_on_inference_parameters_outside_that_mode_is_torchs_error(who: str) -> None:
    with torch.inference_mode():
        param = Parameter(torch.ones(3))
        param.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
        make(who, "Adam", [param]).step()


@KINDS
def test_gradients_with_a_graph_of_their_own(kind: str, options: dict[str, Any]) -> None:
    """`create_graph` leaves gradients that require grad; the step reads them and stays out of the graph."""
    results = []
    for who in BOTH:
        param, optimizer = warmed(who, kind, options)
        for _ in range(2):
            (param.grad,) = torch.autograd.grad(param.pow(3).sum(), param, create_graph=True)
            assert param.grad.requires_grad
            optimizer.step()
        assert not any(value.requires_grad for value in optimizer.state[param].values() if isinstance(value, Tensor))
        results.append(written(optimizer, [param]))
    # torch's SGD lets the first momentum buffer be a clone of the gradient, here without its graph: both under no_grad.
    assert_equal(*results)


@KINDS
def test_a_step_inside_backward(kind: str, options: dict[str, Any]) -> None:
    """An optimizer for each parameter that steps as soon as its gradient is there."""
    results = []
    for who in BOTH:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
        params = list(model.parameters())
        optimizers = {param: make(who, kind, [param], lr=0.1, **options) for param in params}

        def step(param: Tensor, optimizers: dict[Tensor, torch.optim.Optimizer] = optimizers) -> None:
            optimizers[param].step()
            optimizers[param].zero_grad()

        for param in params:
            param.register_post_accumulate_grad_hook(step)
        for batch in torch.ones(4, 6, 5):
            model(batch).square().sum().backward()
        assert all(param.grad is None for param in params)
        results.append(
            {f"{i} {key}": value for i, p in enumerate(params) for key, value in written(optimizers[p], [p]).items()}
        )
    assert_equal(*results)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's own look at loss
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("who", ["native", "plain"])
def test_a_training_step_under_torch_compile(who: str, kind: str) -> None:
    """Dynamo leaves the step to Python, whatever it compiles around it."""
    results = []
    for compiles in (True, False):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 3)
        params = list(model.parameters())
        optimizer = make(who, kind, params, lr=0.001)

        def train(batch: Tensor, model: torch.nn.Module = model, optimizer: Any = optimizer) -> Tensor:
            loss: Tensor = model(batch).square().sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        act = torch.compile(train, backend="eager") if compiles else train
        losses = [act(batch).detach().item() for batch in torch.rand(6, 5).expand(4, 6, 5)]
        assert losses[-1] < losses[0]
        results.append(written(optimizer, params))
    torch._dynamo.reset()
    assert_equal(*results)
