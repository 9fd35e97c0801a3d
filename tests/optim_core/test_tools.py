"""Tools that wrap or look into an optimizer: accelerate, torch's hooks and profiler, copies with work pending."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

import optim_core
from tests.optim_core.pairs import assert_equal, make, written

KINDS = pytest.mark.parametrize(
    ("kind", "options"),
    [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {"amsgrad": True})],
    ids=["SGD", "Adam", "AdamW"],
)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def batches() -> torch.Tensor:
    return torch.randn(6, 16, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:accelerate")
@KINDS
def test_training_under_accelerate_equals_bare_training(kind: str, options: dict[str, Any]) -> None:
    accelerate = pytest.importorskip("accelerate")
    results = []
    for wraps in (True, False):
        net = model()
        optimizer = make("native", kind, net.parameters(), lr=0.05, **options)
        scheduler = lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
        accelerator = accelerate.Accelerator(cpu=True)
        wrapped = (net, optimizer, scheduler)
        if wraps:
            wrapped = accelerator.prepare(*wrapped)
            assert type(wrapped[1]) is not type(optimizer)
        for batch in batches():
            loss = wrapped[0](batch).square().mean()
            accelerator.backward(loss) if wraps else loss.backward()
            if wraps:
                accelerator.clip_grad_norm_(net.parameters(), 0.1)
            else:
                torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            wrapped[1].step()
            wrapped[2].step()
            wrapped[1].zero_grad()
        assert wrapped[1].state_dict()["param_groups"][0]["lr"] == 0.05 * 0.5**3
        results.append(written(optimizer, list(net.parameters())))
        accelerator.free_memory()
    assert_equal(*results)


@KINDS
def test_torch_leaves_the_step_unwrapped(kind: str, options: dict[str, Any]) -> None:
    optimizer = make("native", kind, model().parameters(), **options)
    assert type(optimizer).step is optim_core.base.RuleOptimizer.step
    assert type(optimizer).step.hooked is True
    copied = pickle.loads(pickle.dumps(optimizer))
    assert type(copied).step is optim_core.base.RuleOptimizer.step


@KINDS
@pytest.mark.parametrize("scope", ["own", "global", "both"])
def test_hooks_registered_between_steps_run_once_each(kind: str, options: dict[str, Any], scope: str) -> None:
    param = Parameter(torch.ones(3))
    optimizer = make("native", kind, [param], **options)
    calls: list[str] = []

    def step() -> None:
        param.grad = torch.ones(3)
        optimizer.step()

    step()
    handles = []
    if scope != "own":
        handles.append(register_optimizer_step_pre_hook(lambda *_: calls.append("global")))
    if scope != "global":
        handles.append(optimizer.register_step_post_hook(lambda *_: calls.append("own")))
    try:
        step()
        step()
    finally:
        for handle in handles:
            handle.remove()
    step()
    assert calls == {"own": ["own"], "global": ["global"], "both": ["global", "own"]}[scope] * 2


@KINDS
def test_a_pre_hook_may_replace_the_arguments(kind: str, options: dict[str, Any]) -> None:
    param = Parameter(torch.ones(3))
    optimizer = make("native", kind, [param], **options)
    param.grad = torch.ones(3)
    optimizer.register_step_pre_hook(lambda *_: ((optimizer, lambda: 7.0), {}))
    assert optimizer.step() == 7.0


@KINDS
def test_the_newer_profiler_names_the_step_too(kind: str, options: dict[str, Any]) -> None:
    param = Parameter(torch.ones(3))
    optimizer = make("native", kind, [param], **options)
    param.grad = torch.ones(3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    names = [event.name for event in profile.events()]
    assert names.count(f"Optimizer.step#{kind}.step") == 1


@pytest.mark.parametrize("how", ["deepcopy", "copy", "pickle"])
@KINDS
def test_a_copy_while_a_clip_and_a_measurement_wait(kind: str, options: dict[str, Any], how: str) -> None:
    """A copy takes over options and state, torch's; what waits for the next step stays with the original."""
    param = Parameter(torch.ones(3))
    optimizer = make("native", kind, [param], lr=0.5, **options)
    for _ in range(2):
        param.grad = torch.full((3,), 2.0)
        optimizer.step()
    optimizer.clip_grad_norm(1e-3)
    optimizer.measure_next_step()
    before = written(optimizer, [param])
    if how == "pickle":
        data = pickle.dumps(optimizer)
        assert b"_kernel" not in data
        assert b"_table" not in data
        copied = pickle.loads(data)
    else:
        copied = getattr(copy, how)(optimizer)
    (own,) = copied.param_groups[0]["params"]
    assert (own is param) == (how == "copy")
    assert copied.measured is None
    if how != "copy":
        own.grad = torch.full((3,), 2.0)
        copied.step()
        assert copied.measured is None
        assert float((own.detach() - param.detach()).abs().max()) > 0.01  # not clipped
        assert_equal(written(optimizer, [param]), before)
    param.grad = torch.full((3,), 2.0)
    optimizer.step()
    assert optimizer.measured[0].grad_norm == pytest.approx(12**0.5)


@KINDS
def test_a_subclass_with_a_step_of_its_own(kind: str, options: dict[str, Any]) -> None:
    base = getattr(optim_core, kind)

    class Counting(base):  # type: ignore[misc]
        count = 0

        def step(self, closure: Any = None) -> Any:
            self.count += 1
            return super().step(closure)

    results = []
    for who in (Counting, base):
        net = model()
        optimizer = who(net.parameters(), lr=0.05, **options)
        for batch in batches():
            optimizer.zero_grad()
            net(batch).square().mean().backward()
            optimizer.step()
        results.append(written(optimizer, list(net.parameters())))
    assert_equal(*results)
    assert type(optimizer).step is optim_core.base.RuleOptimizer.step


def test_what_prints_an_optimizer_shows_its_options() -> None:
    optimizer = optim_core.Adam([Parameter(torch.ones(3))], lr=0.25)
    assert "lr: 0.25" in repr(optimizer)
    assert "Table" not in repr(optimizer)
