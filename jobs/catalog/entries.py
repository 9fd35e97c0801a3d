"""How the catalogue describes itself to a client: GET /v1/datasets, /v1/models and /v1/optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traind.spec import Part


@dataclass(frozen=True)
class Entry:
    """One name that a spec may use; `parameters` is the JSON schema of its part of the spec."""

    name: str
    description: str
    parameters: dict[str, Any]


def entry(part: type[Part]) -> Entry:
    """The entry of a part of the spec that is chosen by its `name`."""
    schema = part.model_json_schema()
    description = schema.pop("description")
    return Entry(name=schema["properties"]["name"]["const"], description=description, parameters=schema)
