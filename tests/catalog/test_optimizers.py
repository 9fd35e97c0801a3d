"""Param groups: which parameter is in which group, with which options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.catalog.optimizers import MAX_NAMES_IN_MESSAGE, param_groups
from traind.errors import InvalidSpec
from traind.spec import Adam, AdamGroup, Sgd, SgdGroup

NAMES = ["1.weight", "1.bias", "3.weight", "3.bias"]


def test_without_groups_all_parameters_have_the_optimizers_options() -> None:
    (group,) = param_groups(Sgd(name="sgd", lr=0.1, momentum=0.9), NAMES)
    assert group.metric_suffix == ""
    assert group.params == tuple(NAMES)
    assert group.options == {
        "lr": 0.1,
        "momentum": 0.9,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "maximize": False,
    }


def test_the_first_matching_group_wins_and_the_rest_stays_with_the_default() -> None:
    optimizer = Adam(
        name="adam",
        weight_decay=0.1,
        param_groups=(AdamGroup(params="*.bias", weight_decay=0.0), AdamGroup(params="3.*", lr=1e-4)),
    )
    default, biases, head = param_groups(optimizer, NAMES)
    assert (default.metric_suffix, default.params) == ("", ("1.weight",))
    assert (biases.metric_suffix, biases.params) == ("/1", ("1.bias", "3.bias"))
    assert (head.metric_suffix, head.params) == ("/2", ("3.weight",))
    assert (biases.options["weight_decay"], biases.options["lr"]) == (0.0, 1e-3)
    assert (head.options["weight_decay"], head.options["lr"]) == (0.1, 1e-4)


def test_no_default_group_where_nothing_is_left() -> None:
    groups = param_groups(Sgd(name="sgd", param_groups=(SgdGroup(params="*"),)), NAMES)
    assert [group.metric_suffix for group in groups] == ["/1"]


@given(st.lists(st.sampled_from(["*", "*.bias", "*.weight", "1.*", "3.bias", "[13].weight", "2.*"]), max_size=5))
def test_every_parameter_is_in_exactly_one_group(patterns: list[str]) -> None:
    optimizer = Sgd(name="sgd", param_groups=tuple(SgdGroup(params=pattern) for pattern in patterns))
    try:
        groups = param_groups(optimizer, NAMES)
    except InvalidSpec:
        return
    assert sorted(name for group in groups for name in group.params) == sorted(NAMES)


def test_patterns_that_get_nothing_are_refused_with_the_names_there_are() -> None:
    groups = (AdamGroup(params="*.Bias"), AdamGroup(params="1.*"), AdamGroup(params="1.weight"))
    with pytest.raises(InvalidSpec) as refused:
        param_groups(Adam(name="adam", param_groups=groups), NAMES)
    assert [(p.pointer, p.message) for p in refused.value.problems] == [
        (
            "/optimizer/param_groups/0/params",
            "'*.Bias' matches no parameter; there are 1.weight, 1.bias, 3.weight, 3.bias",
        ),
        (
            "/optimizer/param_groups/2/params",
            "every parameter that '1.weight' matches is already in a group before this one",
        ),
    ]


def test_the_list_of_names_is_bounded() -> None:
    names = [f"{i}.weight" for i in range(MAX_NAMES_IN_MESSAGE + 5)]
    with pytest.raises(InvalidSpec, match=r"39\.weight and 5 more"):
        param_groups(Sgd(name="sgd", param_groups=(SgdGroup(params="x"),)), names)
