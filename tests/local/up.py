"""`traind up` as a process, for tests that stop and kill it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from tests.local.families import PATIENT, guards_of, only_child
from traind import service

START_SECONDS = 90.0
COMMAND_SECONDS = 250.0
"""A command that takes longer counts as hung; `traind doctor` imports torch, which is slow on a busy machine."""
_LIBC = ctypes.CDLL(None)  # loaded before any fork
EMBEDDED = {name: value for name, value in os.environ.items() if not name.startswith("TRAIND_")}


def traind(*arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, on embedded servers where `environment` names no others."""
    command = [python, "-P", "-m", "traind", *arguments]
    return subprocess.run(
        command, env=EMBEDDED | environment, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )


def _die_with_the_tests() -> None:
    """On Linux: should the test run be killed, its service is too."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


class Up:
    """A running `traind up`, in a session of its own; `lines` are what it says on stderr."""

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        python: str = sys.executable,
        through: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """`through` is a command that runs the one that follows it."""
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [*through, python, "-P", "-m", "traind", "up", "--data-dir", str(data_dir), "--port", "0", *options],
            env=EMBEDDED | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_die_with_the_tests,  # noqa: PLW1509  one system call
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=[self.process.stderr], daemon=True)
        self._reader.start()
        self.url = self.process.stdout.readline().strip()
        assert self.url, f"it did not start: {self.said()}"

    def _read(self, stderr: IO[str]) -> None:
        for line in stderr:
            self.lines.put(line)

    def said(self) -> str:
        """Everything on stderr, once it has ended."""
        self._reader.join(START_SECONDS)
        return "".join(self.lines.queue)

    def wait_for(self, pattern: str) -> str:
        while True:
            line = self.lines.get(timeout=START_SECONDS)
            if re.search(pattern, line):
                return line

    def everything(self) -> list[psutil.Process]:
        """Itself and all that it started, wherever they are in the tree."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def program(self, name: str) -> psutil.Process:
        """The running program of that name; waits while it is being started again."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess, ValueError):
                (guard,) = guards_of(name, parent=self.process.pid)
                return only_child(guard.pid)
            time.sleep(0.02)
        raise AssertionError(f"no {name} runs")

    def key(self) -> str:
        info = service.read(self.data_dir)
        assert info is not None
        assert info.pid == self.process.pid
        assert info.url == self.url
        return info.api_key

    def alive(self) -> bool:
        """Whether it answers; a request that comes while the API is started again waits."""
        with urllib.request.urlopen(f"{self.url}/livez", timeout=START_SECONDS) as answer:
            return bool(answer.status == 200)

    def close(self) -> None:
        """The end, if it still runs: by force."""
        left = self.everything() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(left, timeout=PATIENT)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
