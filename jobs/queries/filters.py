"""What a list of jobs can be filtered by, as conditions on the table of jobs. Called by `jobs.queries.jobs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Numeric, Text, and_, case, cast, func, literal, or_

from jobs.documents import clean_text
from jobs.states import ASKED, Request, ShownState
from jobs.tables import job

ID_DIGITS = 32
START_DIGITS = 8
"""A UUIDv7 begins with its time: fewer digits than these are the start of all jobs of many minutes."""
_LIKE = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_", "*": "%", "?": "_"})


class Bound(StrEnum):
    """How a value of a metric must stand to the wanted one."""

    ABOVE = ">"
    AT_LEAST = ">="
    BELOW = "<"
    AT_MOST = "<="


@dataclass(frozen=True)
class MetricBound:
    """A condition on the last value of a metric, or if `best` on its best. A job without one, or with NaN, fails it."""

    key: str
    bound: Bound
    value: float
    best: bool = False


@dataclass(frozen=True)
class Filter:
    """Which jobs are wanted: those that pass all of it.

    `states`: any of these, or all if it is empty. `labels` wants these values, or with None any value. `ident` are the
    last hexadecimal digits of an id, at least 4 of them, or its first 8 or more, without hyphens, in lower case. `name`
    is a part of a name, or with `*` and `?` a pattern for the whole of it, in any case.
    """

    states: Sequence[ShownState] = ()
    labels: Mapping[str, str | None] = field(default_factory=dict)
    optimizer: str | None = None
    ident: str | None = None
    name: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metrics: Sequence[MetricBound] = ()


def conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    """The filter as conditions that all must hold."""
    if wanted.states:
        yield or_(*map(_shown_as, wanted.states))
    yield from _labelled(wanted.labels)
    if wanted.optimizer is not None:
        yield job.c.optimizer == clean_text(wanted.optimizer)
    if wanted.ident is not None:
        yield _identified(wanted.ident)
    if wanted.name is not None:
        yield _named(wanted.name)
    if wanted.created_after is not None:
        yield job.c.created_at > wanted.created_after
    if wanted.created_before is not None:
        yield job.c.created_at < wanted.created_before
    yield from map(_measured, wanted.metrics)


def _shown_as(state: ShownState) -> ColumnElement[bool]:
    asked = [request for request, shown_as in ASKED.items() if shown_as is state]
    if asked:
        return job.c.requested == asked[0]
    return and_(job.c.state == state, job.c.requested == Request.NONE)


def _labelled(labels: Mapping[str, str | None]) -> Iterator[ColumnElement[bool]]:
    for name, value in labels.items():
        if value is None:
            yield job.c.labels.has_key(clean_text(name))
        else:
            yield job.c.labels.contains({clean_text(name): clean_text(value)})


def _identified(digits: str) -> ColumnElement[bool]:
    """By the index on reversed ids, or the primary key. No LIKE: prepared, it could not use the index."""
    backwards = func.reverse(func.replace(cast(job.c.id, Text), "-", ""))
    last = digits[::-1]
    ends = and_(backwards.op("~>=~", is_comparison=True)(last), backwards.op("~<~", is_comparison=True)(f"{last}g"))
    if len(digits) < START_DIGITS:
        return ends
    first, final = (UUID(digits.ljust(ID_DIGITS, fill)) for fill in "0f")
    return or_(ends, job.c.id.between(first, final))


def _named(name: str) -> ColumnElement[bool]:
    pattern = clean_text(name).translate(_LIKE)
    whole = "*" in name or "?" in name
    return job.c.name.ilike(pattern if whole else f"%{pattern}%", escape="\\")


def _measured(wanted: MetricBound) -> ColumnElement[bool]:
    """As numeric: infinities, which JSON holds as strings, are compared, and nothing is out of range."""
    path = ["best", clean_text(wanted.key), "value"] if wanted.best else ["last", clean_text(wanted.key)]
    at = literal(path, ARRAY(Text))
    value: ColumnElement[Any] = job.c.summary.op("#>>")(at)
    number = func.jsonb_typeof(job.c.summary.op("#>")(at)) == "number"
    compared = cast(value, Numeric).op(wanted.bound.value, is_comparison=True)(cast(str(wanted.value), Numeric))
    return case((or_(number, value.in_(("Infinity", "-Infinity"))), compared), else_=False)
