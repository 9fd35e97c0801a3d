"""Finds the service and the job that a command refers to.

TRAIND_URL with TRAIND_API_KEY, or else the `service.json` that a local `traind up` keeps in its data folder; an
explicit --data-dir wins over both. The key comes from nowhere else: a command line is read by everybody.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import closing
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from traind.cli import output
from traind.cli.errors import CliError

if TYPE_CHECKING:
    from traind.client import Client
    from traind.client.http import Http

T = TypeVar("T")
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Data folder of the local service to use.", show_default=False)
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or its last four digits or more.")]

ENVIRONMENT = "TRAIND_URL and TRAIND_API_KEY"
ORIGIN = ContextVar("ORIGIN", default=ENVIRONMENT)
"""Where the address and the key in use come from: ENVIRONMENT, or the path of a file."""
LEAST_DIGITS = 4
ID_DIGITS = 32
SHOWN = 10
"""How many of the jobs that a shortened id may mean are listed."""


class NoService(CliError):
    """No service was found."""

    code = "no-service"


class UnknownJob(CliError):
    """The text that the user gave is not a job's id."""

    code = "unknown-job"
    exit_code = 2


def connect(data_dir: Path | None) -> Client:
    """A client for the service to use. Raises NoService, which says how to start or choose one."""
    from traind.client import Client

    return _made(Client, data_dir)


def plain(data_dir: Path | None) -> closing[Http]:
    """Calls to the same service that return documents, for commands that need no Client: importing it takes 0.1 s."""
    from traind.client.http import Http

    return closing(_made(Http, data_dir))


def _made(kind: Callable[[str, str], T], data_dir: Path | None) -> T:
    url, key, origin = _address(data_dir)
    ORIGIN.set(origin)
    try:
        return kind(url, key)
    except ValueError as e:
        raise NoService(f"{origin}: {e}") from None


def _address(data_dir: Path | None) -> tuple[str, str, str]:
    """URL, key, and where they come from."""
    url, key = (os.environ.get(name, "").strip() for name in ("TRAIND_URL", "TRAIND_API_KEY"))
    if url and data_dir is None:
        if not key:
            raise NoService("TRAIND_URL is set, but TRAIND_API_KEY is not; set it to a key of that service")
        return url, key, ENVIRONMENT
    return _local(data_dir)


def _local(data_dir: Path | None) -> tuple[str, str, str]:
    from traind.service import FILE_NAME, locate, read

    folder = locate(data_dir)
    up = f"`traind up --data-dir {folder}`" if data_dir else "`traind up`"
    try:
        info = read(folder)
    except OSError as e:
        raise NoService(
            f"{e.filename or folder} cannot be read ({e.strerror}); is it another user's service?"
        ) from None
    if info is None:
        raise NoService(f"no service runs in {folder}; start one with {up}, or set TRAIND_URL and TRAIND_API_KEY")
    if not _runs(info.pid):
        raise NoService(f"the service of {folder} has stopped; start it again with {up}")
    return info.url, info.api_key, str(folder / FILE_NAME)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def job_id(client: Client, text: str) -> str:
    """The full id of the job that `text` names. Only a shortened id needs a call. Raises UnknownJob."""
    digits = text.strip().lower().replace("-", "")
    if not set(digits) <= set("0123456789abcdef") or not LEAST_DIGITS <= len(digits) <= ID_DIGITS:
        raise UnknownJob(
            f"{text[:60]!r} is not a job's id; give all of it, or its last {LEAST_DIGITS} digits or more",
            "`traind ls` lists the jobs",
        )
    if len(digits) == ID_DIGITS:
        return str(uuid.UUID(digits))
    found = list(islice(client.list(id=digits, page=SHOWN + 1), SHOWN + 1))
    if len(found) > 1:
        lines = [f"{job.id}  {job.state}  {job.name or ''}".rstrip() for job in found[:SHOWN]]
        raise UnknownJob(f"{text!r} is short for several jobs; give more digits:", *lines, *["…"][: len(found) - SHOWN])
    if not found:
        raise UnknownJob(f"no job has an id that ends or starts with {text!r}", "`traind ls` lists the jobs")
    return found[0].id


def silence(client: Client) -> Callable[[float], None]:
    """For `client.wait`: prints on stderr that the service does not answer, above anything that is drawn there."""
    return lambda seconds: output.stderr().print(f"no answer from {client.url} for {seconds:.0f} s; still trying")
