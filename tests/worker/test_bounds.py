"""What ends a trainer from within: its deadline, and the end of its worker. In processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from worker.clock import boottime

LONG_C_CALL = "sum(range(10**12))"
"""One call of a C function that never lets go of the GIL."""
DEADLINE = """
import sys
from worker.deadline import Deadline
deadline = Deadline(float(sys.argv[1]))
print("set", flush=True)
"""
MOVED_DEADLINE = """
import sys, time
from worker.clock import boottime
from worker.deadline import Deadline
seconds = float(sys.argv[1])
deadline = Deadline(boottime() + seconds)
print("set", flush=True)
deadline.move(boottime() + 1000)
time.sleep(2 * seconds)
print("lives", flush=True)
"""
DEATH_PIPE = """
import sys
from worker.death_pipe import die_with_writer
die_with_writer(int(sys.argv[1]))
print("set", flush=True)
"""


@contextmanager
def run(code: str, argument: object, *, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed "set" and is in the rest of its code, or has ended before; killed in the end."""
    command = [sys.executable, "-c", code, str(argument)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, pass_fds=pass_fds) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_the_deadline_ends_a_call_that_holds_the_gil() -> None:
    until = boottime() + 3
    with run(DEADLINE + LONG_C_CALL, until) as process:
        assert process.wait(15) == -signal.SIGKILL
        assert boottime() >= until


def test_the_deadline_ends_a_stopped_process() -> None:
    with run(DEADLINE + LONG_C_CALL, boottime() + 3) as process:
        process.send_signal(signal.SIGSTOP)
        assert process.wait(15) == -signal.SIGKILL


def test_the_deadline_can_be_moved() -> None:
    code = DEADLINE + "deadline.move(float(sys.argv[1]) - 1000)"
    with run(code, boottime() + 1_000) as process:
        assert process.wait(15) == -signal.SIGKILL
    with run(MOVED_DEADLINE, 1) as process:
        assert process.stdout
        assert process.stdout.readline() == "lives\n"


def test_a_deadline_in_the_past_ends_it_at_once() -> None:
    with run(DEADLINE + LONG_C_CALL, boottime() - 1) as process:
        assert process.wait(15) == -signal.SIGKILL


@pytest.mark.parametrize("stopped", [False, True], ids=["in a C call", "stopped"])
def test_the_end_of_the_writer_ends_it(stopped: bool) -> None:
    read, write = os.pipe()
    with run(DEATH_PIPE + LONG_C_CALL, read, pass_fds=(read,)) as process:
        if stopped:
            process.send_signal(signal.SIGSTOP)
        assert process.poll() is None
        began = time.monotonic()
        os.close(write)
        assert process.wait(15) == -signal.SIGKILL
        assert time.monotonic() - began < 1
    os.close(read)


def test_a_writer_that_ended_before_ends_it_too() -> None:
    read, write = os.pipe()
    os.close(write)
    with run(DEATH_PIPE + LONG_C_CALL, read, pass_fds=(read,)) as process:
        assert process.wait(15) == -signal.SIGKILL
    os.close(read)


def test_the_worker_does_not_load_torch() -> None:
    """Only the fork server does, once for all trainers."""
    code = "import sys, worker.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
