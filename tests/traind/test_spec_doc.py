"""docs/spec.md is current and whole."""

from __future__ import annotations

from pathlib import Path

from traind.spec import JobSpec
from traind.spec_doc import document


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "spec.md"
    assert page.read_text() == document(), "run: python -m traind.spec_doc docs/spec.md"


def test_every_field_of_the_spec_is_on_it() -> None:
    schema = JobSpec.model_json_schema()
    names = {name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", {})}
    text = document()
    assert not {name for name in names - {"name", "type"} if f"| `{name}` |" not in text}
