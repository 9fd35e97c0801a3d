"""Processes under guards: their end with their owner, their ordered end, their logs, their restarts."""

from __future__ import annotations

import os
import queue
import signal
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from local.errors import StartFailed
from local.guard import BoundedLog
from local.process import Family, Kept, Program, ended
from tests.local.families import PATIENT, assert_gone, guards_of, only_child, owner, python

OWNER = """
    import json, pathlib, signal, sys, psutil
    from local.process import Family
    from tests.local.families import only_child, python
    family, folder = Family(), pathlib.Path(sys.argv[1])
    guard = family.start(python(sys.argv[2], folder, orphaned=((signal.SIGTERM, 0.5),)))
    while "started" not in (folder / "program.log").read_text() if (folder / "program.log").exists() else True:
        pass
    print(json.dumps([guard.pid, only_child(guard.pid).pid]), flush=True)
    sys.stdin.read() if len(sys.argv) > 3 else signal.pause()
"""
OBEDIENT = "import signal; print('started', flush=True); signal.pause()"
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"no "))  # print would fail inside the print below
print("started", flush=True)
while True:
    signal.pause()
"""


def log_until(program: Program, text: str) -> str:
    deadline = time.monotonic() + PATIENT
    while True:
        log = program.log.read_text() if program.log.exists() else ""
        if text in log:
            return log
        assert time.monotonic() < deadline, f"{text!r} is not in {log!r}"
        time.sleep(0.01)


@pytest.mark.parametrize("program", [OBEDIENT, STUBBORN], ids=["obedient", "stubborn"])
def test_kill_9_of_the_owner_leaves_nothing(tmp_path: Path, program: str) -> None:
    with owner(OWNER, str(tmp_path), program) as (process, started):
        assert all(each.is_running() for each in started)
        process.kill()
        assert_gone(started)


def test_kill_9_of_the_guard_leaves_nothing(tmp_path: Path, family: Family) -> None:
    program = python(OBEDIENT, tmp_path)
    with family.start(program) as process:
        log_until(program, "started")
        child = only_child(process.pid)
        process.kill()
        assert_gone([child])


def test_it_ends_by_its_steps_then_by_force(tmp_path: Path, family: Family) -> None:
    program = python(STUBBORN, tmp_path, stop=((signal.SIGTERM, 1.0), (signal.SIGTERM, 1.0)))
    process = family.start(program)
    log_until(program, "started")
    process.terminate()
    assert process.wait(PATIENT) == 128 + signal.SIGKILL
    assert program.log.read_text().count("no") == 2


def test_closing_the_family_ends_all(tmp_path: Path) -> None:
    family = Family()
    program = python(OBEDIENT, tmp_path, orphaned=((signal.SIGTERM, 5.0),))
    process = family.start(program)
    log_until(program, "started")
    family.close()
    assert process.wait(PATIENT) == 128 + signal.SIGTERM


def test_a_terminal_s_ctrl_c_reaches_neither_guard_nor_program(tmp_path: Path, family: Family) -> None:
    program = python(OBEDIENT, tmp_path)
    process = family.start(program)
    log_until(program, "started")
    pids = {process.pid, only_child(process.pid).pid}
    assert {os.getsid(pid) for pid in pids} == pids
    process.send_signal(signal.SIGINT)
    process.terminate()
    assert process.wait(PATIENT) == 128 + signal.SIGTERM


def test_signals_are_not_ignored_in_the_program(tmp_path: Path, family: Family) -> None:
    code = "import signal; print([signal.getsignal(n) for n in (2, 1, 3, 15)])"
    assert family.start(program := python(code, tmp_path)).wait(PATIENT) == 0
    assert "SIG_IGN" not in program.log.read_text()


def test_all_output_of_a_program_is_kept(tmp_path: Path, family: Family) -> None:
    program = python("for i in range(30_000): print(i)", tmp_path)
    assert family.start(program).wait(PATIENT) == 0
    assert program.log.read_text().splitlines() == [str(i) for i in range(30_000)]


def test_a_log_is_bounded(tmp_path: Path) -> None:
    with closing(BoundedLog(tmp_path / "a.log", limit=1_000)) as log:
        for i in range(100):
            log.write(f"{i:098}\n".encode())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2_000
    assert (tmp_path / "a.log").read_text().splitlines()[-1].endswith("99")
    assert (tmp_path / "a.log.1").exists()


def test_a_log_that_was_removed_begins_anew_when_it_would_be_full(tmp_path: Path) -> None:
    with closing(BoundedLog(tmp_path / "a.log", limit=1_000)) as log:
        log.write(b"x" * 600)
        (tmp_path / "a.log").unlink()
        log.write(b"y" * 600)
        log.write(b"z" * 100)
    assert (tmp_path / "a.log").read_bytes() == b"y" * 600 + b"z" * 100


def test_a_log_that_cannot_begin_anew_goes_on_once_it_can(tmp_path: Path) -> None:
    with closing(BoundedLog(tmp_path / "a.log", limit=1_000)) as log:
        log.write(b"x" * 600)
        log.path = tmp_path / "missing" / "a.log"
        log.write(b"y" * 600)
        log.path.parent.mkdir()
        log.write(b"z" * 600)
    assert (tmp_path / "missing" / "a.log").read_bytes() == b"z" * 600


def test_what_a_program_leaves_behind_ends_before_its_guard(tmp_path: Path, family: Family) -> None:
    code = """
        import os, signal
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            print(os.getpid(), flush=True)
            os.write(write, b"printed")
            signal.pause()
        os.read(read, 1)
        """
    process = family.start(program := python(code, tmp_path))
    left = int(log_until(program, "\n"))
    assert process.wait(PATIENT) == 0
    assert not psutil.pid_exists(left)


def test_a_missing_program_is_told_in_the_log(tmp_path: Path, family: Family) -> None:
    program = Program(
        name="none", argv=["/nowhere/at-all"], log=tmp_path / "log", cwd=tmp_path, environment={}, stop=()
    )
    assert family.start(program).wait(PATIENT) == 127
    assert "cannot start /nowhere/at-all" in program.log_tail()


def test_a_dead_program_is_started_again_with_back_off(tmp_path: Path, family: Family) -> None:
    said: queue.Queue[str] = queue.Queue()
    kept = Kept(family, python("raise SystemExit(7)", tmp_path), report=said.put)
    try:
        first, second = (said.get(timeout=PATIENT) for _ in range(2))
    finally:
        kept.stop()
    assert first.startswith("program ended with status 7; starting it again in 0.5 s")
    assert "again in 1 s" in second


def test_a_killed_program_is_running_again(tmp_path: Path, family: Family) -> None:
    said: queue.Queue[str] = queue.Queue()
    program = python(OBEDIENT, tmp_path)
    kept = Kept(family, program, report=said.put)
    log_until(program, "started\n")
    (guard,) = guards_of("program")
    only_child(guard.pid).kill()
    assert "was ended by SIGKILL" in said.get(timeout=PATIENT)
    log_until(program, "started\nstarted\n")
    kept.stop()
    assert said.empty()


def test_one_that_does_not_come_up_is_an_error_with_its_last_words(tmp_path: Path, family: Family) -> None:
    kept = Kept(family, python("print('no licence'); raise SystemExit(3)", tmp_path), report=print)
    with pytest.raises(StartFailed, match=r"(?s)ended with status 3.*no licence"):
        kept.wait_ready(lambda: False, timeout_seconds=PATIENT)
    kept.stop()


def test_one_that_hangs_is_an_error(tmp_path: Path, family: Family) -> None:
    kept = Kept(family, python(OBEDIENT, tmp_path), report=print)
    with pytest.raises(StartFailed, match="did not come up in time"):
        kept.wait_ready(lambda: False, timeout_seconds=0.1)
    kept.stop()


def test_ends_in_words() -> None:
    assert ended(0) == "ended with status 0"
    assert ended(128 + signal.SIGSEGV) == "was ended by SIGSEGV"
    assert ended(-9) == "and its guard were ended by signal 9"
