"""Options that select jobs by label, name, time and metric, and the filters of the list of jobs made from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from traind.cli.errors import Refused

LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="KEY[=VALUE]", help="Only jobs with this label; repeat the option for more labels."
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Only jobs whose name contains this text; with * or ?, a pattern for the whole name."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only jobs submitted after this time: 2h or 3d ago, or an ISO 8601 time."
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="TIME", help="Only jobs submitted before this time: 2h or 3d ago, or an ISO 8601 time."
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="METRIC>NUMBER",
        help="Only jobs whose last value of a metric meets this condition, e.g. 'val/accuracy>0.9' "
        "(or >=, <, <=); 'best:val/accuracy>0.9' tests the best value; repeat the option for more conditions.",
    ),
]
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def filters(
    *,
    state: Sequence[str] | None = None,
    label: Sequence[str] | None = None,
    optimizer: str | None = None,
    name: str | None = None,
    since: str | None = None,
    until: str | None = None,
    where: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The options as arguments for `traind.client.calls.list_jobs` and `Client.list`. Raises Refused."""
    now = datetime.now(UTC)
    return {
        "state": state or (),
        "labels": labels(label or ()),
        "optimizer": optimizer,
        "name": name,
        "created_after": None if since is None else moment("--since", since, now),
        "created_before": None if until is None else moment("--until", until, now),
        "metric": where or (),
    }


def labels(texts: Sequence[str]) -> dict[str, str | None]:
    """Parses `KEY=VALUE`, or `KEY` for any value. Raises Refused if one key has two values."""
    wanted: dict[str, str | None] = {}
    for key, separator, value in (text.partition("=") for text in texts):
        if separator and wanted.get(key, value) not in (value, None):
            raise Refused(f"--label {key}: cannot be both {wanted[key]} and {value}")
        wanted[key] = value if separator else wanted.get(key)
    return wanted


def moment(option: str, text: str, now: datetime) -> datetime:
    """Parses a time before `now`, such as 90s, 30m, 2h, 3d or 1w, or an ISO 8601 time (local if it has no zone). Raises
    Refused.
    """
    ago = re.fullmatch(r"([0-9]+)([smhdw])", text, re.ASCII)
    try:
        return (
            now - timedelta(seconds=int(ago[1]) * UNITS[ago[2]]) if ago else datetime.fromisoformat(text).astimezone()
        )
    except (ValueError, OverflowError):
        raise Refused(f"{option} {text}: give 30m, 2h, 3d, or a time such as 2026-01-31T14:00") from None
