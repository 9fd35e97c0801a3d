"""docs/api.md is current."""

from __future__ import annotations

from pathlib import Path

from api.reference import document


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "api.md"
    assert page.read_text() == document(), "run: python -m api.reference docs/api.md"
