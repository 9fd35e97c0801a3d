"""Options that several server commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with everything the service keeps. Default: TRAIND_DATA_DIR, else /var/lib/traind (root) or"
        " ~/.local/share/traind.",
        show_default=False,
    ),
]
OutputFormat = Annotated[Literal["table", "json"], typer.Option("--output", "-o", help="json: one JSON document.")]
