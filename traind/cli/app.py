"""The command `traind` itself: its commands, the server's commands where they are installed, and its errors.

Everything but Typer is imported by the command that needs it, so that `traind --help` is quick.
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from traind.cli import (
    catalogue,
    checkpoints,
    checks,
    jobs,
    metrics,
    output,
    removal,
    streams,
    submit,
    verbs,
    watch,
    workers,
)
from traind.cli.errors import FAILED, INTERRUPTED, USAGE, CliError
from traind.errors import ApiError, InvalidSpec, TraindError

COMMANDS_GROUP = "traind.commands"


class Group(TyperGroup):
    """Turns errors into a message on stderr and an exit code; a defect keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TraindError as e:
            report(e)
            raise typer.Exit(exit_code(e)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def main() -> None:
    """Entry point of `traind`."""
    streams.open_closed_ones()
    streams.forgive_stderr()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        build()(prog_name="traind")
    except OSError as e:
        if not streams.was_writing(e):
            raise
        streams.drop_unwritten()
        output.note(f"traind: standard output cannot be written: {e.strerror}")
        raise SystemExit(FAILED) from None


def _version(wanted: bool) -> None:
    if wanted:
        output.data(f"traind {version('traind')}")
        raise typer.Exit


def build() -> typer.Typer:
    """The application with every command that is installed."""
    app = typer.Typer(
        cls=Group,
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
    )
    app.callback()(top)
    for module in (submit, watch, jobs, verbs, removal, metrics, checkpoints, checks, workers, catalogue):
        module.register(app)
    for entry in entry_points(group=COMMANDS_GROUP):
        try:
            entry.load()(app)
        except ImportError as e:
            output.note(f"the commands of {entry.value} are not available: {e}")
    return app


def top(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print traind's version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train models as jobs and compare optimizers. Data goes to stdout, progress and errors to stderr."""


def report(error: TraindError) -> None:
    """The error on stderr, with what can be done about it."""
    output.note(f"traind: {error}")
    for line in error.lines if isinstance(error, CliError) else ():
        output.note(f"  {line}")
    if isinstance(error, ApiError):
        _report_api_error(error)


def _report_api_error(error: ApiError) -> None:
    for p in error.problems:
        if p.pointer or p.message not in str(error):
            output.note(f"  {p.pointer}: {p.message}" if p.pointer else f"  {p.message}")
    fix = {
        "unreachable": "is it running? `traind up` starts a service here; TRAIND_URL says where another one is",
        "unauthenticated": "set TRAIND_API_KEY to a key of this service",
        "invalid-key": "set TRAIND_API_KEY to a key of this service",
        "not-found": "`traind ls` lists the jobs",
        "internal": f"request id {error.request_id}" if error.request_id else "",
    }.get(error.code)
    if fix:
        output.note(f"  {fix}")


def exit_code(error: TraindError) -> int:
    if isinstance(error, CliError):
        return error.exit_code
    if isinstance(error, ApiError) and (error.status in (400, 413, 422) or error.code == "invalid-parameter"):
        return USAGE
    if isinstance(error, InvalidSpec):
        return USAGE
    return FAILED
