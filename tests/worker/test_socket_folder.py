"""A temporary folder whose path is too long for a socket, as SLURM and CI make them; and one that cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker
from tests.worker.service import BRIEF, Service
from worker.socket_folder import LONGEST_BYTES

POOR = """
import resource
from worker.process import WarmUpFailed, warm_up
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
try:
    warm_up("cpu")
except WarmUpFailed as error:
    print(error)
"""
USE = """
import sys, tempfile, worker.socket_folder as s
s.SHORT = sys.argv[1:]
try:
    s.use_short_folder()
except s.NoSocketFolder as error:
    print(error)
else:
    from multiprocessing import util
    print(util.get_temp_dir())
"""


@pytest.fixture(params=[LONGEST_BYTES, LONGEST_BYTES + 1, 200])
def long_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    left = request.param - len(os.fsencode(tmp_path)) - 1
    if left < 1:
        pytest.skip("the tests' own folder is too long for this one")
    folder = tmp_path / ("x" * left)
    folder.mkdir()
    return folder


def test_a_worker_starts_and_trains_under_any_tmpdir(
    service: Service, start: StartWorker, queue: str, long_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(long_folder))
    with start("long") as worker:
        assert service.wait_final(service.submit(BRIEF, queue=queue)).state == "succeeded"
        worker.process.terminate()
        assert worker.process.wait(60) == 0
    assert not list(long_folder.glob("pymp-*"))


def used(tmpdir: Path, *short: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    command = [sys.executable, "-c", USE, *short]
    done = subprocess.run(
        command, env=environment | {"TMPDIR": str(tmpdir)}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_first_short_folder_that_can_be_written_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    assert used(folder, "/proc", "/nowhere", "/tmp").startswith("/tmp/pymp-")
    told = used(folder, "/proc", "/nowhere")
    assert "too many for a socket" in told
    assert f"set TMPDIR to a folder of at most {LONGEST_BYTES} bytes" in told


def test_a_fork_server_that_cannot_start_is_told_in_one_line() -> None:
    """Here for want of descriptors; whatever the system says, it is no traceback."""
    done = subprocess.run([sys.executable, "-c", POOR], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("the fork server does not start: [Errno 24]")
    assert done.stderr == ""
