"""Processes for the tests of process keeping: small programs, and an owner that can be killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from local.process import Program, Steps

PATIENT = 20.0


def python(code: str, folder: Path, *, stop: Steps = ((signal.SIGTERM, 10.0),), orphaned: Steps = ()) -> Program:
    """A program of some lines of Python, whose log lies in `folder`."""
    return Program(
        name="program",
        argv=[sys.executable, "-I", "-S", "-c", textwrap.dedent(code)],
        log=folder / "program.log",
        cwd=folder,
        environment={},
        stop=stop,
        orphaned=orphaned,
    )


@contextmanager
def owner(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process that runs `code`, which prints the pids it started as one JSON line. Yields it and those processes;
    whatever is left of them at the end is killed.
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            started = [psutil.Process(pid) for pid in json.loads(process.stdout.readline())]
            yield process, started
        finally:
            process.kill()
            kill(started)


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to each; those before it in the list may have taken it along."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def assert_gone(processes: list[psutil.Process], *, within_seconds: float = PATIENT) -> None:
    """They end by themselves. A zombie has ended, whoever has yet to take note of it."""
    deadline = time.monotonic() + within_seconds
    while left := [process for process in processes if _runs(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def guards_of(name: str, *, parent: int | None = None) -> list[psutil.Process]:
    """The guards, among our children or those of `parent`, of programs named `name`."""
    return [child for child in psutil.Process(parent).children() if name in _command(child)]


def _command(process: psutil.Process) -> list[str]:
    """What it was started as; nothing of one that has ended, taken note of or not."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def only_child(pid: int) -> psutil.Process:
    """The process that the guard `pid` runs."""
    (child,) = psutil.Process(pid).children()
    return child
