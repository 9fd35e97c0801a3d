"""The command line with a full disk behind stdout, with closed streams, and with Ctrl-C while it starts."""

from __future__ import annotations

import shlex
import subprocess
import sys
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


@pytest.mark.parametrize(("arguments", "said"), [(("submit", "-"), "found nothing"), (("rm", JOB["id"]), "say --yes")])
def test_a_closed_stdin_is_empty_and_no_terminal(arguments: tuple[str, ...], said: str) -> None:
    with scripted() as service:
        done = shell(arguments, "<&-", service.url)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False)


INTERRUPTED_WHILE_IT_IMPORTS = """
import signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == chosen:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

chosen = sys.argv[1]
sys.meta_path.insert(0, Interrupting())
sys.argv[0:2] = ["traind"]
from traind.cli import main
main()
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("traind.cli.app", ("--version",)),
        ("typer", ("--version",)),
        ("local.commands", ("doctor",)),
        ("traind.client", ("ls",)),
        ("traind.spec", ("submit", *SPEC)),
        ("local.supervisor", ("up",)),
        ("local.running", ("down",)),
        ("local.doctor", ("doctor",)),
        ("jobs.keys", ("keys", "ls")),
    ],
)
def test_ctrl_c_while_it_starts_is_exit_code_130_without_a_word(
    module: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", INTERRUPTED_WHILE_IT_IMPORTS, module, *arguments]
    env = environment(TRAIND_DATA_DIR=str(tmp_path), TRAIND_URL="http://127.0.0.1:1", TRAIND_API_KEY="td_x")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_a_full_disk_behind_stderr_is_no_error() -> None:
    with scripted(answer(JOB | {"state": "succeeded"})) as service:
        done = shell(("watch", JOB["id"]), "2> /dev/full", service.url)
    assert done.returncode == 0


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
