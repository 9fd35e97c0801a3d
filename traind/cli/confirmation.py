"""The question before an action that cannot be undone. Used by `traind rm` and `traind cancel --label`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from traind.cli.errors import FAILED

MOST_NAMED = 10


def confirm(verb: str, what: str, idents: Sequence[str], end: str = "", *, yes: bool) -> None:
    """Ask on a terminal; without a terminal, `--yes` is required. Raises Exit if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: say --yes")
    named = ", ".join(idents[:MOST_NAMED]) + (", …" if len(idents) > MOST_NAMED else "")
    many = f"{len(idents)} {what}s: {named}" if len(idents) > 1 else f"{what} {named}"
    if not typer.confirm(f"{verb} {many}{end}?", err=True):
        raise typer.Exit(FAILED)
