"""A trainer process as its worker sees it: start, link, signals, end.

It is a child of the fork server (of `spawn` on macOS), so it is watched by a pidfd and not by waitpid: the fork
server may die first, and then the exit code it owes reads 255. Knows nothing of jobs; used by `worker.trainer`.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import structlog

from worker import child
from worker.socket_folder import NoSocketFolder, use_short_folder
from worker.training.waiting import let_threads_sleep

START_SECONDS = 30.0
LOOK_SECONDS = 0.1
"""Between two looks at whether a trainer that starts is still wanted."""
WARM_UP_SECONDS = 120.0
LINUX = sys.platform == "linux"

log = structlog.get_logger(__name__)


class StartFailed(Exception):
    """The fork server would not start a trainer, twice."""


class WarmUpFailed(Exception):
    """The fork server cannot give trainers what they need; the message says what to do."""


@dataclass(frozen=True)
class Exit:
    """How a trainer ended: the signal that killed it, or its exit code; 255 also where the fork server died first."""

    code: int | None
    signal: signal.Signals | None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {self.signal.name}"
        return "ended, exit code unknown" if self.code in (None, 255) else f"exited with code {self.code}"


class Process:
    """A running trainer process. `link` carries its messages; `close` must be called in the end."""

    def __init__(self, process: BaseProcess, link: Connection, death: Connection) -> None:
        self._process = process
        self._death = death
        self._sending = threading.Lock()
        self._signalling = threading.Lock()
        self.link = link
        self.pid = process.pid
        self._pidfd = _open_pidfd(process.pid)

    def send(self, data: bytes) -> None:
        """Send an encoded message; a trainer that is gone does not mind."""
        with self._sending, contextlib.suppress(OSError):
            self.link.send_bytes(data)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing where the process is gone, even if its pid was given to another."""
        with self._signalling, contextlib.suppress(ProcessLookupError):
            if not LINUX:
                if self._process.is_alive() and self.pid is not None:
                    os.kill(self.pid, number)
            elif self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def wait(self, timeout_seconds: float) -> bool:
        """Whether the process is gone within the timeout."""
        if not LINUX:
            self._process.join(timeout_seconds)
            return self._process.exitcode is not None
        if self._pidfd is None:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_seconds * 1_000))

    def exit(self) -> Exit:
        """How it ended; to be asked only after `wait` was true, for the fork server may have died before it."""
        self._process.join(1.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            return Exit(None, signal.Signals(-code))
        return Exit(code, None)

    def close(self) -> None:
        """Kill it where it still runs, and give its descriptors back. The death pipe kills it a second time."""
        self.kill()
        self._death.close()
        self.wait(5.0)
        with self._signalling:
            self.link.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None


def start(job: str, log_path: Path, *, wanted: Callable[[], bool]) -> Process:
    """A trainer for `job`, a TrainerJob as JSON; it waits to be told RunUntil.

    A fork server that dies under the start is tried once more, and none is waited for that is not `wanted` any more.

    Raises StartFailed.
    """
    try:
        return _start(job, log_path, wanted)
    except (OSError, EOFError) as first:
        if not wanted():
            raise StartFailed("no trainer is wanted any more") from first
        log.warning("the fork server did not start a trainer; trying once more", error=repr(first))
    try:
        return _start(job, log_path, wanted)
    except (OSError, EOFError) as second:
        raise StartFailed(f"the fork server did not start a trainer, twice: {second!r}") from second


def _start(job: str, log_path: Path, wanted: Callable[[], bool]) -> Process:
    """One try, given up in time or when it is not wanted; whatever comes to life later finds its death pipe closed."""
    context = _context()
    ours, theirs = context.Pipe(duplex=True)
    death_read, death_write = context.Pipe(duplex=False)
    process = context.Process(target=child.main, args=(job, theirs, death_read, str(log_path)), name="trainer")
    failures: list[Exception] = []

    def try_it() -> None:
        try:
            process.start()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=try_it, name="start-trainer", daemon=True)
    give_up_at = time.monotonic() + START_SECONDS
    thread.start()
    while thread.is_alive() and wanted() and time.monotonic() < give_up_at:
        thread.join(LOOK_SECONDS)
    if thread.is_alive():
        failures.append(TimeoutError(f"no answer in {START_SECONDS:g} s"))
    if failures:
        death_write.close()
        ours.close()
        raise failures[0]
    theirs.close()
    death_read.close()
    return Process(process, ours, death_write)


def warm_up(device: str) -> None:
    """Start the fork server and a throw-away child; from the main thread, before the process has other threads.

    Raises WarmUpFailed where a trainer could not work here: a preload that fails is otherwise passed over in silence.
    """
    let_threads_sleep()
    if not LINUX:
        return
    try:
        use_short_folder()
    except NoSocketFolder as error:
        raise WarmUpFailed(str(error)) from error
    multiprocessing.set_forkserver_preload(["worker.preload"])
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child.look_around, args=(theirs, device), name="warm-up")
    try:
        process.start()
    except (OSError, EOFError) as error:
        raise WarmUpFailed(f"the fork server does not start: {error}") from error
    theirs.close()
    try:
        found = json.loads(ours.recv_bytes()) if ours.poll(WARM_UP_SECONDS) else {}
    except EOFError:
        found = {}
    process.join(5.0)
    if not found.get("preloaded"):
        why = found.get("reason") or "`python -m worker.training` says why"
        raise WarmUpFailed(f"the fork server cannot import what a trainer needs: {why}")
    if device == "cuda" and not found["gpus"]:
        raise WarmUpFailed("no GPU is visible to torch here; check CUDA_VISIBLE_DEVICES, or start with --device cpu")


def _context() -> ForkServerContext | SpawnContext:
    return multiprocessing.get_context("forkserver") if LINUX else multiprocessing.get_context("spawn")


def _open_pidfd(pid: int | None) -> int | None:
    """A pidfd, or None where the process is gone already (or there are no pidfds)."""
    if not LINUX or pid is None:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
