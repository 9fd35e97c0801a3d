"""The server commands of the CLI: up, down, demo, doctor, gc, db, keys, projects, api, worker.

The entry point `traind.commands` names `register`. Light to import: every `traind` command loads this module; what a
command needs it imports itself.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from local.care import doctor, gc
from local.keys import keys
from local.options import DataDir
from local.projects import projects

STOP_SECONDS = 120.0

database = typer.Typer(help="The database's schema.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the server commands to the CLI, each where what it needs is installed."""
    through = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    if _installed("psutil", "fastapi", "torch"):
        for command in (up, down, demo):
            app.command()(command)
    if _installed("sqlalchemy"):
        for command in (doctor, gc):
            app.command()(command)
        app.add_typer(database, name="db")
        app.add_typer(keys, name="keys")
        app.add_typer(projects, name="projects")
    if _installed("fastapi"):
        app.command(context_settings=through)(api)
    if _installed("torch"):
        app.command(context_settings=through)(worker)


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def up(
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: TRAIND_HOST, else 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port to listen on; 0 means any free port (default: TRAIND_PORT, else 8321, or a free port if taken).",
            min=0,
            max=65_535,
        ),
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Whether to start a worker; without one, jobs wait.")
    ] = True,
) -> None:
    """Run the whole service in the foreground. Ctrl-C shuts it down in order; a second Ctrl-C stops it at once."""
    from local.signals import stop_signals
    from local.supervisor import Service
    from traind.service import locate

    folder = locate(data_dir)
    try:
        starting = Service(folder, host=host, port=port, worker=worker, ballast=True, report=_say)
        with stop_signals(), starting as service:
            try:
                _announce(service.url)
                _say(f"key      {service.api_key} (the CLI finds it by itself)")
                _say(f"data     {folder}")
                _say(f"logs     {service.log_dir}")
                _say("Ctrl-C stops it.")
                threading.Event().wait()
            except KeyboardInterrupt:
                _say("stopping: a running job goes back to the queue; Ctrl-C again stops at once")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def down(data_dir: DataDir = None) -> None:
    """Stop the service that runs in the data folder, and wait until it has ended."""
    from local import running
    from local.errors import LocalError
    from traind.service import locate

    folder = locate(data_dir)
    known = running.find(folder)
    if known is None:
        _say(f"no service runs in {folder}")
        return
    if not running.end(known, timeout_seconds=STOP_SECONDS):
        raise LocalError(f"process {known.pid} is still stopping after {STOP_SECONDS:g} s; see {folder / 'logs'}")
    _say(f"the service in {folder} has stopped")


def demo(
    data: Annotated[Literal["digits", "fashion_mnist"], typer.Option(help="Data set to train on.")] = "digits",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="New folder for the service's data (default: a temporary folder); it is not deleted afterwards."
        ),
    ] = None,
) -> None:
    """Train a model with SGD, Nesterov and Adam through a whole service, and compare the results."""
    from local.demo import run

    raise typer.Exit(run(data, data_dir=data_dir))


@database.command()
def upgrade() -> None:
    """Migrate the database at TRAIND_DATABASE_URL to this version. `traind up` does this automatically."""
    from jobs.environment import unread_variables
    from jobs.settings import InvalidSettings, load
    from local import preparation

    url = load().database_url
    for line in unread_variables():
        _say(line)
    if url is None:
        raise InvalidSettings("set TRAIND_DATABASE_URL; an embedded database is migrated by `traind up`")
    preparation.migrate(url.get_secret_value())
    _say("the database is up to date")


def api(context: typer.Context) -> None:
    """Run only the API: python -m api ARGUMENTS."""
    _become("api", context.args)


def worker(context: typer.Context) -> None:
    """Run only a worker: python -m worker ARGUMENTS."""
    _become("worker", context.args)


def _become(room: str, arguments: list[str]) -> None:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", room, *arguments])  # noqa: S606  no shell is wanted


def _announce(url: str) -> None:
    """The URL on stdout; if that cannot be written, on stderr, and the service runs on."""
    from traind.cli import output, streams

    try:
        output.data(url)
    except OSError:
        streams.drop_unwritten()
        _say(f"url      {url}")


def _say(line: str) -> None:
    """A line on stderr, from any thread; if that cannot be written, the service does not suffer."""
    from traind.cli.output import note

    note(line)
