"""Findings, by check."""

from __future__ import annotations

from collections.abc import Iterable

from local.doctor.findings import Finding, Level


def bad(findings: Iterable[Finding]) -> list[tuple[str, Level]]:
    """Check and level of those that are not ok. Each of them says what to do."""
    found = [each for each in findings if each.level is not Level.OK]
    assert all(each.fix for each in found)
    return [(each.check, each.level) for each in found]
