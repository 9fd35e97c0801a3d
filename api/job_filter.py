"""The query of the list of jobs."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from api.errors import InvalidParameter
from jobs.queries import Bound, Filter, MetricBound, ShownState

MAX_LABELS = 20
MAX_BOUNDS = 10
_BOUND = re.compile(
    r"(?P<best>best:)?(?P<key>(?!best:)[^<>=\x00-\x1f\x7f]+)(?P<bound>[<>]=?)\s*"
    r"(?P<value>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
)


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")


def _rfc3339(value: object) -> object:
    """Refuses numbers, which pydantic would take for seconds since 1970."""
    if isinstance(value, str) and not _TIME.fullmatch(value):
        raise ValueError("give date, time and zone, such as 2026-01-31T14:05:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]


class JobFilter(BaseModel):
    """Query of the list. Filters are joined by "and"."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[
        list[ShownState], Field(max_length=len(ShownState), description="Any of these states; all if none is given")
    ] = []
    label: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=264, pattern=r"^[^\x00-\x1f\x7f]+$")]],
        Field(
            max_length=MAX_LABELS, description="`name:value`, or `name` for any value", examples=[["study:first-steps"]]
        ),
    ] = []
    optimizer: Annotated[str | None, Field(max_length=100, examples=["adam"])] = None
    id: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9A-Fa-f-]{4,36}$",
            description="The last 4 or more hexadecimal digits of an id, or its first 8 or more",
            examples=["17d7df42"],
        ),
    ] = None
    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            pattern=r"^[^\x00-\x1f\x7f]+$",
            description="A part of the name; with `*` (any text) or `?` (any character), a pattern for the whole name. "
            "Case is ignored",
            examples=["sweep-*"],
        ),
    ] = None
    created_after: Annotated[Time | None, Field(description="Only jobs submitted after this time")] = None
    created_before: Annotated[Time | None, Field(description="Only jobs submitted before this time")] = None
    metric: Annotated[
        list[Annotated[str, Field(min_length=3, max_length=300)]],
        Field(
            max_length=MAX_BOUNDS,
            description="Only jobs whose last value of a metric meets this: `val/accuracy>0.9`; `>`, `>=`, `<`, `<=`. "
            "`best:val/accuracy>0.9` tests the best value",
            examples=[["val/accuracy>0.9"]],
        ),
    ] = []
    cursor: Annotated[str | None, Field(max_length=500, description="`next_cursor` of the previous page")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50

    def filter(self) -> Filter:
        """Raises InvalidParameter for filters that no job can match, or that cannot be parsed."""
        return Filter(
            states=self.state,
            labels=self._labels(),
            optimizer=self.optimizer,
            ident=None if self.id is None else _digits(self.id),
            name=self.name,
            created_after=self.created_after,
            created_before=self.created_before,
            metrics=[_bound(text) for text in self.metric],
        )

    def _labels(self) -> dict[str, str | None]:
        """The wanted labels. Raises InvalidParameter if one name has two values, because no job can have both."""
        wanted: dict[str, str | None] = {}
        for text in self.label:
            name, colon, value = text.partition(":")
            if colon and wanted.get(name, value) not in (value, None):
                raise InvalidParameter.named("label", f"{name} cannot be both {wanted[name]} and {value}")
            wanted[name] = value if colon else wanted.get(name)
        return wanted


def _digits(text: str) -> str:
    digits = text.replace("-", "").lower()
    if not 4 <= len(digits) <= 32:
        raise InvalidParameter.named("id", "give 4 to 32 hexadecimal digits")
    return digits


def _bound(text: str) -> MetricBound:
    found = _BOUND.fullmatch(text)
    if found is None or not math.isfinite(value := float(found["value"])):
        raise InvalidParameter.named("metric", "write it as KEY>NUMBER (or >=, <, <=), such as val/accuracy>0.9")
    return MetricBound(found["key"].strip(), Bound(found["bound"]), value, best=bool(found["best"]))
