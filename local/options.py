"""Options that several server commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder for all data of the service (default: TRAIND_DATA_DIR, else /var/lib/traind as root or"
        " ~/.local/share/traind).",
        show_default=False,
    ),
]
OutputFormat = Annotated[
    Literal["table", "json"], typer.Option("--output", "-o", help="Output format; json is one JSON document.")
]
