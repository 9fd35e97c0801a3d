"""State dicts: torch's form, exchanged with torch in both directions, and save-load-continue is continue."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import optim_core
from tests.optim_core.cases import CASES, Case, assert_same_bits, build, gradients, run, states, zoo

pytestmark = pytest.mark.usefixtures("ieee_root")

ALL = pytest.mark.parametrize("case", CASES, ids=str)
ROWS = gradients(torch.float32, 8)


def fresh(case: Case, *, ours: bool) -> tuple[list[Parameter], torch.optim.Optimizer]:
    params = zoo(torch.float32)
    return params, build(case, params, ours=ours)


def test_both_forms_of_a_flat_state_dict_are_equal() -> None:
    param = Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    for name in ("SGD", "Adam", "AdamW"):
        options = {"momentum": 0.9} if name == "SGD" else {"amsgrad": True}
        pair = [getattr(module, name)([param], **options) for module in (optim_core, torch.optim)]
        for optimizer in pair:
            optimizer.step()
        ours, theirs = (optimizer.state_dict() for optimizer in pair)
        assert ours["param_groups"] == theirs["param_groups"]
        assert {key: value.dtype for key, value in ours["state"][0].items()} == {
            key: value.dtype for key, value in theirs["state"][0].items()
        }


@ALL
@pytest.mark.parametrize("direction", ["ours to ours", "ours to torch", "torch to ours"])
def test_save_load_continue_is_continue(case: Case, direction: str) -> None:
    writer, reader = direction.split(" to ")
    params, optimizer = fresh(case, ours=writer == "ours")
    run(optimizer, params, ROWS[:4])
    loaded_params = copy.deepcopy(params)
    loaded = build(case, loaded_params, ours=reader == "ours")
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, params, ROWS[4:])
    run(loaded, loaded_params, ROWS[4:])
    assert_same_bits(states(loaded, loaded_params), states(optimizer, params), strides=False)


@ALL
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_continues_alone(case: Case, how: str) -> None:
    params, optimizer = fresh(case, ours=True)
    run(optimizer, params, ROWS[:4])
    for param in params:
        param.grad = None
    pair = (params, optimizer)
    copied_params, copied = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    before = {name: value.clone() for name, value in states(optimizer, params)}
    run(copied, copied_params, ROWS[4:])
    assert_same_bits(states(optimizer, params), iter(before.items()), strides=False)
    run(optimizer, params, ROWS[4:])
    assert_same_bits(states(copied, copied_params), states(optimizer, params), strides=False)


def test_named_parameters_keep_their_names() -> None:
    optimizer = optim_core.SGD(torch.nn.Linear(2, 1).named_parameters())
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_a_state_dict_with_another_number_of_groups_is_refused() -> None:
    one, two = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    state_dict = optim_core.SGD([{"params": [one]}, {"params": [two]}]).state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optim_core.SGD([one, two]).load_state_dict(state_dict)


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_a_refused_option_in_a_state_dict_changes_nothing(flag: str) -> None:
    params, optimizer = fresh(Case("Adam", "plain"), ours=True)
    run(optimizer, params, ROWS[:2])
    before = copy.deepcopy(optimizer.state_dict())
    state_dict = copy.deepcopy(before)
    state_dict["param_groups"][0] |= {flag: True, "lr": 7.0}
    state_dict["state"] = {}
    with pytest.raises(ValueError, match=f"{flag}=True is not supported"):
        optimizer.load_state_dict(state_dict)
    assert str(optimizer.state_dict()) == str(before)


@pytest.mark.parametrize("case", [Case("SGD", "old", {"momentum": 0.9}), Case("Adam", "old")], ids=str)
def test_an_old_state_dict_without_the_newer_options_loads(case: Case) -> None:
    params, optimizer = fresh(case, ours=True)
    run(optimizer, params, ROWS[:4])
    old: dict[str, Any] = copy.deepcopy(optimizer.state_dict())
    for group in old["param_groups"]:
        for name in ("nesterov", "amsgrad", "maximize", "foreach", "fused", "capturable", "differentiable"):
            group.pop(name, None)
        group.pop("decoupled_weight_decay", None)
    for entry in old["state"].values():
        if "step" in entry:
            entry["step"] = int(entry["step"])
    loaded_params = copy.deepcopy(params)
    loaded = build(case, loaded_params, ours=True)
    loaded.load_state_dict(old)
    run(optimizer, params, ROWS[4:])
    run(loaded, loaded_params, ROWS[4:])
    assert_same_bits(states(loaded, loaded_params), states(optimizer, params), strides=False)


def test_adamw_stays_decoupled_whatever_it_loads() -> None:
    params = [Parameter(torch.ones(2))]
    optimizer = optim_core.AdamW(params)
    optimizer.load_state_dict(torch.optim.Adam(params).state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_step_is_counted_in_float64_only_by_default_dtype() -> None:
    previous = torch.get_default_dtype()
    for default, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        torch.set_default_dtype(default)
        try:
            param = Parameter(torch.ones(2, dtype=torch.float32))
            optimizer = optim_core.Adam([param])
            run(optimizer, [param], [[torch.ones(2, dtype=torch.float32)]])
        finally:
            torch.set_default_dtype(previous)
        assert optimizer.state[param]["step"].dtype == expected


def test_tensor_betas_are_stored_0_d_as_torch_stores_them() -> None:
    betas = (torch.tensor([0.9]), torch.tensor([0.99]))
    for module in (optim_core, torch.optim):
        group = module.Adam([Parameter(torch.ones(2))], betas=betas).state_dict()["param_groups"][0]
        assert [beta.dim() for beta in group["betas"]] == [0, 0]
