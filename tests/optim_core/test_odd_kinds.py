"""Gradients, parameters and state of odd kinds: torch's results, whether the kernel takes them or leaves them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.optim_core.pairs import assert_equal, bits_of, make, needs_kernel, written
from tests.optim_core.test_aliasing import KINDS, Wrapped, ramp

pytestmark = pytest.mark.usefixtures("ieee_root")


def negated(value: Tensor) -> Tensor:
    """The same values, as a view that torch negates when it reads it."""
    found = torch.complex(torch.zeros_like(value), -value).conj().imag
    assert found.is_neg()
    return found


def gradient_of_a_graph(value: Tensor) -> Tensor:
    return value.clone().requires_grad_() * 1


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "negated": negated,
    "expanded": lambda value: value.flatten()[0].expand(value.shape),
    "in a graph": gradient_of_a_graph,
    "flipped": lambda value: value.flip(0) if value.dim() else value,
    "transposed": lambda value: value.t().contiguous().t() if value.dim() == 2 else value,
    "a parameter": Parameter,
    "in inference mode": lambda value: torch.inference_mode()(value.clone)(),
    "misaligned": lambda value: torch.cat([torch.zeros(1), value.flatten()])[1:].view(value.shape),
    "a lazy copy": torch._lazy_clone,
}


@KINDS
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_odd_kinds(kind: str, options: dict[str, Any], name: str) -> None:
    results = []
    for who in ("native", "torch"):
        params = [Parameter(ramp(*shape)) for shape in [(), (1,), (1, 1), (7,), (4, 5)]]
        optimizer = make(who, kind, params, **options)
        for step in range(3):
            for param in params:
                param.grad = GRADIENTS[name](ramp(*param.shape) + step + 1)
            optimizer.step()
        results.append(written(optimizer, params))
    assert_equal(*results)


@needs_kernel
@pytest.mark.parametrize("where", ["param", "exp_avg", "exp_avg_sq", "step"])
def test_negated_parameters_and_state(where: str) -> None:
    """Of one element, because only those can be dense."""
    results = []
    for who in ("native", "torch"):
        param = Parameter(negated(torch.tensor([1.0])) if where == "param" else torch.ones(1))
        optimizer = make(who, "Adam", [param], lr=0.1)
        for step in range(3):
            param.grad = torch.tensor([2.0])
            optimizer.step()
            if where != "param" and step == 0:
                optimizer.state[param][where] = negated(optimizer.state[param][where])
        seen = written(optimizer, [param])
        results.append(seen | {"value": bits_of(param.detach().resolve_neg())})
    assert_equal(*results)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_lazy_copy_is_written_and_its_source_is_not(kind: str) -> None:
    source = torch.ones(70)
    param = Parameter(torch._lazy_clone(source))
    optimizer = make("native", kind, [param], lr=0.1)
    for _ in range(3):
        param.grad = torch.ones(70)
        optimizer.step()
    assert torch.equal(source, torch.ones(70))
    assert float(param.detach().max()) < 0.9


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(
    "make_param",
    [
        lambda: Wrapped(ramp(6)),
        lambda: Parameter(ramp(6).to(torch.complex64) * 1j),
        lambda: Parameter(torch.ones(6, device="meta")),
        lambda: torch.nn.Buffer(ramp(6)).requires_grad_(),
    ],
    ids=["subclass", "complex", "meta", "buffer"],
)
def test_parameters_that_the_kernel_leaves_go_as_in_torch(kind: str, make_param: Callable[[], Tensor]) -> None:
    results = []
    for who in ("native", "torch"):
        odd, plain_one = make_param(), Parameter(ramp(6))
        optimizer = make(who, kind, [plain_one, odd, Parameter(ramp(3))], lr=0.1)
        for _ in range(3):
            odd.grad, plain_one.grad = torch.full_like(odd.detach(), 0.5), torch.ones(6)
            optimizer.step()
        seen = [plain_one] if odd.is_meta else [plain_one, odd]
        results.append(written(optimizer, seen) | {"count": torch.tensor(len(optimizer.state))})
    assert_equal(*results)
