"""Workers made by fork from a process that has imported all they need, instead of five seconds of imports for each.

`warm_process` starts that process, which imports nothing until it is asked for the first worker; `Lent` asks it for
one. A worker's fork server is its child by fork, the first time; if it is killed, the worker starts another as always.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 100.0
POLL = 0.002
OF_THE_IMPORTS = ("LD_PRELOAD", "TRAIND_KERNEL", "ATEN_CPU_CAPABILITY", "OMP_", "MKL_", "PYTHON", "CUDA_")
"""Environment that is read while Python starts or torch is imported; a worker with others must be started."""

_path: list[Path] = []
_environment: dict[str, str] = {}
"""This process's when the first test began, as the warm process has it."""


@contextmanager
def warm_process(path: Path) -> Iterator[None]:
    """The process that makes workers for who connects to `path`; it ends with this context or with our process."""
    command = [sys.executable, "-m", "tests.worker.warm", str(path), "worker", "forkserver"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(START_SECONDS)


def use(path: Path) -> None:
    """Let the workers of this process's tests be made by the warm process that listens there."""
    _path.append(path)
    _environment.update(os.environ)


def where() -> Path | None:
    return _path[-1] if _path else None


def fits(environment: Mapping[str, str]) -> bool:
    """Whether a worker with this environment would import the same as the warm process has."""
    return all(
        environment.get(name) == _environment.get(name)
        for name in {*environment, *_environment}
        if name.startswith(OF_THE_IMPORTS)
    )


class Lent:
    """A worker that the warm process made, with what tests need of `subprocess.Popen`."""

    def __init__(self, path: Path, arguments: Sequence[str], environment: Mapping[str, str], log: int) -> None:
        self.returncode: int | None = None
        self._channel = _connect(path)
        request = json.dumps({"arguments": list(arguments), "environment": dict(environment)})
        socket.send_fds(self._channel, [request.encode()], [log])
        self._channel.settimeout(START_SECONDS)
        self.pid = int(json.loads(self._channel.recv(1024))["pid"])

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(["worker"], timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._channel.settimeout(timeout)
            with contextlib.suppress(BlockingIOError, TimeoutError):
                self.returncode = int(json.loads(self._channel.recv(1024))["code"])
                self._channel.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _connect(path: Path) -> socket.socket:
    """As soon as the warm process listens; it answers only when it is warm."""
    give_up_at = time.monotonic() + START_SECONDS
    while True:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel.connect(str(path))
            return channel
        except (FileNotFoundError, ConnectionRefusedError):
            channel.close()
            if time.monotonic() > give_up_at:
                raise
            time.sleep(POLL)
