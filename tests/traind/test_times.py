"""The CLI shows times in the machine's time zone, and names it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from traind.cli.output import when


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "month", "shown"),
    [
        ("JST-9", 1, "2026-01-31 08:30:05 JST"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1, "2026-01-31 00:30:05 CET"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 8, "2026-08-31 01:30:05 CEST"),
        ("<-03>3", 1, "2026-01-30 20:30:05 -03"),
        ("UTC0", 1, "2026-01-30 23:30:05 UTC"),
    ],
    indirect=["zone"],
)
def test_a_time_has_its_zone(zone: str, month: int, shown: str) -> None:
    assert when(datetime(2026, month, 30, 23, 30, 5, tzinfo=UTC)) == shown


def test_no_time_is_an_empty_cell() -> None:
    assert when(None) == ""
