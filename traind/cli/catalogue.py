"""`traind datasets`, `models` and `optimizers`: what a spec can name, and with which parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from traind.cli import output
from traind.cli.connection import DataDir, connect
from traind.cli.jobs import FormatOption
from traind.cli.output import Format

if TYPE_CHECKING:
    from traind.client import CatalogueEntry


def register(app: typer.Typer) -> None:
    for command in (datasets, models, optimizers):
        app.command()(command)


def datasets(*, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """List the data sets and their parameters."""
    with connect(data_dir) as client:
        _show(client.datasets(), output_format)


def models(*, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """List the models and their parameters."""
    with connect(data_dir) as client:
        _show(client.models(), output_format)


def optimizers(*, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """List the optimizers and their parameters."""
    with connect(data_dir) as client:
        _show(client.optimizers(), output_format)


def _show(entries: Sequence[CatalogueEntry], output_format: Format) -> None:
    if output_format is Format.JSON:
        output.document([entry.document() for entry in entries])
        return
    rows = [(entry.name, _parameters(entry.parameters), entry.description) for entry in entries]
    output.wrapped_table(("name", "parameters", "description"), rows)


def _parameters(schema: dict[str, Any]) -> str:
    """The names and defaults of the parameters, from their JSON schema."""
    fields = {name: field for name, field in schema.get("properties", {}).items() if name != "name"}
    return ", ".join(f"{name}={field['default']}" if "default" in field else name for name, field in fields.items())
