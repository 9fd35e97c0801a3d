"""Finds the hyperparameters that differ between jobs. Used by `traind ls` and `traind compare`, on job documents."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

PARTS = ("dataset", "model", "optimizer", "schedule", "training")
"""The parts of a spec that decide what is trained; names, labels and resources do not."""
SEED = "training.seed"
ALWAYS = ("dataset.name", "model.name", "optimizer.name", "optimizer.lr")
"""Hyperparameters that always have a column."""

Settings = dict[str, str]


def settings(spec: Mapping[str, Any]) -> Settings:
    """The hyperparameters of a spec as text, by path, such as {"optimizer.lr": "0.1"}; nulls are left out."""
    return {path: text for part in PARTS for path, text in _flat(part, spec.get(part))}


def differing(rows: Sequence[Settings], *, without: Collection[str] = ()) -> list[str]:
    """The paths whose values differ among the rows that have them, or that only some rows with the same names have.

    Adam's betas do not count as different because SGD has none, nor does SGD's momentum if all SGD rows have the same.
    """
    paths = dict.fromkeys(path for row in rows for path in row)
    return [path for path in paths if path not in without and _differs(path, rows)]


def titles(paths: Sequence[str]) -> list[str]:
    """Short headers: the last part of a path (for a name, the part before), or the whole path if two would be equal."""
    short = [_short(path) for path in paths]
    return [path if short.count(name) > 1 else name for path, name in zip(paths, short, strict=True)]


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}", item)
    elif value is not None and value != []:
        yield path, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return ",".join(map(_text, value))
    return json.dumps(value)


def _differs(path: str, rows: Sequence[Settings]) -> bool:
    part = f"{path.partition('.')[0]}.name"
    values: dict[str | None, set[str | None]] = {}
    for row in rows:
        values.setdefault(row.get(part), set()).add(row.get(path))
    found = set[str | None]().union(*values.values())
    return len(found - {None}) > 1 or any(len(each) > 1 for each in values.values())


def _short(path: str) -> str:
    part, _, rest = path.partition(".")
    return part if rest == "name" else rest
