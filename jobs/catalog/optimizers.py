"""Optimizers: which parameters belong to which param group, with which options.

The param groups of a spec are tried in order and the first whose pattern matches a parameter's name (fnmatch,
case-sensitive) takes it; what is left forms the default group, with the optimizer's own options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jobs.catalog.entries import Entry, entry
from traind.errors import InvalidSpec, Problem
from traind.spec import Adam, AdamGroup, Optimizer, Sgd, SgdGroup

MAX_NAMES_IN_MESSAGE = 40


@dataclass(frozen=True)
class ParamGroup:
    """Parameters with one set of options, named and complete as torch's optimizer takes them."""

    metric_suffix: str
    """How the keys of its metrics end: "" for the default group ("lr"), "/1" for the spec's first ("lr/1"), ..."""
    params: tuple[str, ...]
    options: dict[str, Any]


def param_groups(optimizer: Optimizer, names: Sequence[str]) -> tuple[ParamGroup, ...]:
    """The groups that the parameters called `names` fall into: the default group first, where anything is left.

    Raises InvalidSpec for each pattern that gets no parameter.
    """
    base = optimizer.model_dump(exclude={"name", "param_groups"})
    overrides: Sequence[SgdGroup | AdamGroup] = optimizer.param_groups
    left, groups, problems = list(names), list[ParamGroup](), list[Problem]()
    for index, group in enumerate(overrides):
        taken = tuple(name for name in left if fnmatchcase(name, group.params))
        if not taken:
            reason = _nothing_left(group.params, names)
            problems.append(Problem(f"/optimizer/param_groups/{index}/params", "rule", reason))
        left = [name for name in left if name not in taken]
        groups.append(
            ParamGroup(f"/{index + 1}", taken, base | group.model_dump(exclude={"params"}, exclude_none=True))
        )
    if problems:
        raise InvalidSpec(problems)
    default = [ParamGroup("", tuple(left), base)] if left else []
    return (*default, *groups)


def describe() -> list[Entry]:
    """Every optimizer, with the JSON schema of its parameters."""
    return [entry(part) for part in (Sgd, Adam)]


def _nothing_left(pattern: str, names: Sequence[str]) -> str:
    if any(fnmatchcase(name, pattern) for name in names):
        return f"every parameter that {pattern!r} matches is already in a group before this one"
    shown = ", ".join(names[:MAX_NAMES_IN_MESSAGE])
    more = len(names) - MAX_NAMES_IN_MESSAGE
    return f"{pattern!r} matches no parameter; there are {shown}" + (f" and {more} more" if more > 0 else "")
