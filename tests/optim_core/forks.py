"""Python that has torch loaded when it starts: each program runs in a fork of one process that has imported it.

`python forks.py MODULE...` is that process. It has used nothing of what it imported: what torch reads from the
environment at its first operation (ATEN_CPU_CAPABILITY), and optim_core when it is imported (TRAIND_KERNEL), is the
program's own.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sysconfig import get_path
from typing import Any

CHOICES = ("ATEN_CPU_CAPABILITY", "TRAIND_KERNEL", "PYTHONPATH")


class Forks:
    """Runs programs in forks of `process`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def python(
        self, folder: Path, program: str, *, warn: str = "default", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Like `python -W warn -c program` in the folder, with this environment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"folder": str(folder), "program": program, "warn": warn, "environment": environment}
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return subprocess.CompletedProcess(program, *json.loads(self._process.stdout.readline()))
        except BaseException:  # a timeout: the next program must not get the answer to this one
            self.end()
            raise

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)


@contextmanager
def forks(*modules: str) -> Iterator[Forks]:
    """Forks of a process that has imported `modules`, without `site` as in `builds.python`."""
    kept = {key: value for key, value in os.environ.items() if key not in CHOICES}
    command = [sys.executable, "-S", "-P", __file__, *modules]
    process = subprocess.Popen(
        command,
        env=kept | {"PYTHONPATH": get_path("purelib")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        made = Forks(process)
        try:
            yield made
        finally:
            made.end()


def _answer(request: dict[str, Any]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a program."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_run(request))
        _, status = os.waitpid(child, 0)
        for file in (out, err):
            file.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()


def _run(request: dict[str, Any]) -> int:
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    sys.path.insert(0, request["folder"])
    sys.argv = ["-c"]
    warnings.simplefilter(request["warn"])
    status: Any = 0
    try:
        exec(request["program"], {"__name__": "__main__"})
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status or 0)


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
