"""Runs one program so that it can't outlive the process that wanted it. Run as a script, standard library only.

    python -I -S guard.py NAME '{"argv": …}'

The guard starts the program in a session of its own (a Ctrl-C in the terminal reaches neither), writes its output
to a bounded log and ends it step by step: by the steps of `stop` on SIGTERM, by those of `orphaned` when the death
pipe closes, which is when its owner ends, however it ends. Should the guard itself be killed, Linux kills the
program. What the program leaves behind (a backend of a killed Postgres, a fork server) becomes the guard's child on
Linux; the guard ends only when all of it has. Its exit status is the program's; 128 + n for signal n.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LEFT_BEHIND_SECONDS = 2.0


class BoundedLog:
    """A file of at most `limit` bytes; what was there before is kept once, as `<name>.1`. A full disk loses lines."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.file = path.open("ab", buffering=0)
        self.size = self.file.tell()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self.size + len(data) > self.limit:
                self._begin_anew()
            self.size += self.file.write(data)

    def _begin_anew(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody removed it
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        fresh = self.path.open("ab", buffering=0)  # if that fails, the next write tries again
        self.close()
        self.file, self.size = fresh, 0

    def close(self) -> None:
        self.file.close()


class Ending:
    """The steps that end the program: signal, seconds until the next one; after the last comes SIGKILL."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.steps: list[tuple[int, float]] = []
        self.deadline: float | None = None

    def begin(self, steps: list[tuple[int, float]]) -> None:
        self.steps = [*steps, (signal.SIGKILL, 5.0)]
        self.step()

    def step(self) -> None:
        """Send the next signal; SIGKILL goes to everything in the program's session that is still its group."""
        number, seconds = self.steps.pop(0) if self.steps else (signal.SIGKILL, 5.0)
        self.deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.child.pid, number)

    def timeout(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def start(program: dict[str, Any], output: int) -> subprocess.Popen[bytes]:
    uid, gid = program["account"] or (None, None)
    last_will = program["orphaned"][0][0] if program["orphaned"] else signal.SIGKILL
    return subprocess.Popen(
        program["argv"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=program["cwd"],
        pass_fds=program["pass_fds"],
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
        start_new_session=True,
        preexec_fn=_die_with_guard(last_will),  # noqa: PLW1509  safe: the guard has one thread
    )


def _die_with_guard(number: int) -> Callable[[], None] | None:
    """On Linux: what makes the kernel send `number` to the program when the guard (of one thread) is gone."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    guard = os.getpid()

    def request() -> None:  # after setuid, which would clear it
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)

    return request


def watch(child: subprocess.Popen[bytes], program: dict[str, Any], log: BoundedLog, output: int, wakeup: int) -> int:
    """Until the program has ended: copy its output, heed signals and the death pipe. Returns its return code."""
    death = program["death_fd"]
    ending = Ending(child)
    with selectors.DefaultSelector() as selector:
        for descriptor in (output, death, wakeup):
            selector.register(descriptor, selectors.EVENT_READ)
        while reap(child) and child.returncode is None:
            ready = {key.fd for key, _ in selector.select(ending.timeout())}
            if output in ready and not copy(output, log):
                selector.unregister(output)
            if death in ready:
                selector.unregister(death)
                ending.begin(program["orphaned"])
            if wakeup in ready and signal.SIGTERM in os.read(wakeup, 4096) and ending.deadline is None:
                ending.begin(program["stop"])
            if ending.timeout() == 0.0:
                ending.step()
    end_left_behind(child, wakeup)
    for _ in range(16):  # what is left; a grandchild may hold the pipe open and fill it for ever
        if not copy(output, log, when_empty=False):
            break
    return child.returncode


def reap(child: subprocess.Popen[bytes]) -> bool:
    """Take note of the children that have ended, the program among them. False: there are no more."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return True
            if pid == child.pid:
                child.returncode = os.waitstatus_to_exitcode(status)
    return False


def end_left_behind(child: subprocess.Popen[bytes], wakeup: int) -> None:
    """Wait for what the program left behind, which ends by itself when all is well; then kill it."""
    deadline = time.monotonic() + LEFT_BEHIND_SECONDS
    while reap(child):
        if select.select([wakeup], [], [], max(0.0, deadline - time.monotonic()))[0]:
            os.read(wakeup, 4096)
        else:
            deadline = time.monotonic() + 0.1
            for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def copy(output: int, log: BoundedLog, *, when_empty: bool = True) -> bool:
    """Copy some output to the log. False at its end; `when_empty` is the answer where there is none just now."""
    try:
        data = os.read(output, 65_536)
    except BlockingIOError:
        return when_empty
    log.write(data)
    return bool(data)


def wake_on_signals() -> int:
    """A descriptor that is readable once a signal has come. Handlers, not SIG_IGN: the program would inherit that."""
    wakeup, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    return wakeup


def main(text: str) -> NoReturn:
    program = json.loads(text)
    wakeup = wake_on_signals()
    log = BoundedLog(Path(program["log"]), program["log_bytes"])
    output, written = os.pipe()
    os.set_blocking(output, False)
    try:
        child = start(program, written)
    except (OSError, subprocess.SubprocessError) as error:
        log.write(f"cannot start {program['argv'][0]}: {error}\n".encode())
        sys.exit(127)
    os.close(written)
    code = watch(child, program, log, output, wakeup)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[2])
