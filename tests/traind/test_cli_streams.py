"""The command line with a full disk behind stdout, with closed streams, and with Ctrl-C while it starts."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.traind.commands import environment, traind
from tests.traind.scripted import answer, scripted
from tests.traind.test_download import CONTENT, ETAG

DATASETS = {"datasets": [{"name": "d", "description": "x"}]}
JOB = {
    "id": "0199b3c4-1111-7222-8333-444455556666",
    "state": "queued",
    "spec": {},
    "created_at": "2026-11-22T12:00:00Z",
}
SPEC = ("--dataset", "digits", "--model", "mlp", "--optimizer", "adam")
COMMANDS = [("--version",), ("--help",), ("submit", "--help"), ("datasets",), ("datasets", "-o", "json")]


def shell(arguments: tuple[str, ...], redirection: str, url: str) -> subprocess.CompletedProcess[str]:
    command = shlex.join([sys.executable, "-m", "traind", *arguments])
    env = environment(TRAIND_URL=url, TRAIND_API_KEY="td_x")
    return subprocess.run(
        f"{command} {redirection}", shell=True, env=env, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_behind_stdout_is_an_error_in_one_line(arguments: tuple[str, ...]) -> None:
    with scripted(answer(DATASETS)) as service:
        done = shell(arguments, "> /dev/full", service.url)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "traind: standard output cannot be written: No space left on device",
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_the_id_of_a_job_that_was_submitted_is_not_lost(redirection: str) -> None:
    with scripted(answer(JOB, 202)) as service:
        done = shell(("submit", *SPEC), redirection, service.url)
    assert done.returncode == 1
    assert JOB["id"] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_is_an_error_and_a_closed_stderr_none() -> None:
    with scripted(answer(DATASETS), answer(DATASETS)) as service:
        closed = shell(("datasets",), ">&-", service.url)
        assert (closed.returncode, "Traceback" in closed.stderr) == (1, False)
        assert "standard output cannot be written" in closed.stderr
        silent = shell(("datasets",), "2>&- <&-", service.url)
    assert (silent.returncode, "d" in silent.stdout) == (0, True)


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.4])
def test_ctrl_c_while_it_starts_leaves_no_traceback(delay: float) -> None:
    program = "import traind.cli as cli; print('loaded', flush=True); cli.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "watch", "--help"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n"
    time.sleep(delay / 4)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode in (0, 130)
    assert "Traceback" not in said


def test_a_name_that_is_too_long_for_a_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    checkpoint = {
        "id": 1, "job_id": JOB["id"], "attempt": 1, "step": 1, "kind": "final", "complete": True, "damage": None,
        "model": {"size": 1, "sha256": "00"}, "state": {"size": 1, "sha256": "00"},
        "created_at": JOB["created_at"],
    }  # fmt: skip
    with scripted(answer({"checkpoints": [checkpoint]}), answer(CONTENT, ETag=ETAG)) as service:
        env = environment(TRAIND_URL=service.url, TRAIND_API_KEY="td_x")
        done = traind("download", JOB["id"], "-o", tmp_path / ("é" * 200), env=env)
    assert done.returncode in (1, 2)
    assert "File name too long" in done.stderr
    assert "Traceback" not in done.stderr
