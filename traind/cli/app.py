"""The command `traind` itself: its commands, the server's commands if they are installed, and its errors.

A command's module is imported when the command is run, or all of them when help lists them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import getdoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_name, get_group, solve_typer_info_help

from traind.cli import output, streams
from traind.cli.errors import FAILED, INTERRUPTED, USAGE, CliError
from traind.errors import ApiError, InvalidSpec, TraindError

Register = Callable[[typer.Typer], None]
COMMANDS_GROUP = "traind.commands"
HOMES = {
    "submit": ("submit",),
    "watch": ("watch",),
    "listing": ("ls",),
    "compare": ("compare",),
    "jobs": ("get", "events"),
    "verbs": ("cancel", "pause", "resume", "retry"),
    "removal": ("rm",),
    "metrics": ("metrics",),
    "checkpoints": ("checkpoints", "download"),
    "checks": ("verify", "audit", "checks"),
    "workers": ("workers",),
    "catalogue": ("datasets", "models", "optimizers"),
}
"""The modules of traind.cli and the commands that each registers, in the order of the help."""


class Group(TyperGroup):
    """Loads commands when they are needed. Turns errors into a message on stderr and an exit code; a defect keeps its
    traceback.
    """

    _listed = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            home = next((module for module, names in HOMES.items() if cmd_name in names), None)
            for register in _installed() if home is None else [_register(home)]:
                app = typer.Typer()
                register(app)
                self.commands.update(get_group(app).commands)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands with only their help: for the list of commands and for suggestions after a typing error."""
        if self._listed:
            return super().list_commands(ctx)
        self._listed = True
        for register in (*map(_register, HOMES), *_installed()):
            app = typer.Typer()
            register(app)
            for command in app.registered_commands:
                function: Any = command.callback
                name = command.name or get_command_name(function.__name__)
                self.commands[name] = TyperCommand(name=name, help=command.help or getdoc(function))
            for group in app.registered_groups:
                self.commands[str(group.name)] = TyperCommand(name=str(group.name), help=solve_typer_info_help(group))
        return super().list_commands(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.list_commands(ctx)  # all is loaded before the first line is printed
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            self.list_commands(ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TraindError as e:
            report(e)
            raise typer.Exit(exit_code(e)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _register(home: str) -> Register:
    register: Register = import_module(f"traind.cli.{home}").register
    return register


def _installed() -> Iterator[Register]:
    """The functions that add the commands of other packages, such as the server's."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=COMMANDS_GROUP):
        try:
            yield entry.load()
        except ImportError as e:
            output.note(f"the commands of {entry.value} are not available: {e}")


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
        from importlib.metadata import version

        output.data(f"traind {version('traind')}")
        raise typer.Exit


def build() -> typer.Typer:
    """The application; its commands are loaded when they are needed."""
    app = typer.Typer(
        cls=Group,
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
    )
    app.callback()(top)
    return app


def top(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print traind's version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train models as jobs and compare optimizers. Data goes to stdout, progress and errors to stderr."""


def report(error: TraindError) -> None:
    """Print the error on stderr, with what the user can do about it."""
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
        "unauthenticated": _right_key(),
        "invalid-key": _right_key(),
        "not-found": "`traind ls` lists the jobs",
        "internal": f"request id {error.request_id}" if error.request_id else "",
    }.get(error.code)
    if fix:
        output.note(f"  {fix}")


def _right_key() -> str:
    from traind.cli.connection import ENVIRONMENT, ORIGIN

    if (origin := ORIGIN.get()) == ENVIRONMENT:
        return "set TRAIND_API_KEY to a key of this service"
    return f"the key is that of {origin}; if it was revoked, `traind down` and `traind up` make a new one"


def exit_code(error: TraindError) -> int:
    if isinstance(error, CliError):
        return error.exit_code
    if isinstance(error, ApiError) and (error.status in (400, 413, 422) or error.code == "invalid-parameter"):
        return USAGE
    if isinstance(error, InvalidSpec) or error.code == "invalid-settings":
        return USAGE
    return FAILED
