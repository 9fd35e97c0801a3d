"""Machines with odd names, users without a home, folders whose path is not UTF-8: a clear word, never a traceback."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import StartWorker
from tests.worker.service import BRIEF, Service
from worker.health import default_name

HOMELESS = """
import os, sys
import api.__main__, jobs.settings, traind.service, worker.__main__, worker.host
from contextlib import ExitStack
from uuid import uuid4
os.environ.pop("HOME", None)
os.environ.pop("XDG_CACHE_HOME", None)
os.environ.pop("XDG_DATA_HOME", None)
os.setuid(54_321)
settings = jobs.settings.load()
for attempt in (lambda: worker.host._scratch(ExitStack(), settings.scratch_dir, uuid4()), traind.service.locate):
    try:
        attempt()
    except (worker.host.CannotStart, traind.service.NoHome) as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user whom nobody knows")
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAIND_")}
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    scratch, data = done.stdout.splitlines()
    assert scratch == "this user has no home folder: set HOME, or TRAIND_SCRATCH_DIR and TRAIND_CACHE_DIR"
    assert data == "this user has no home folder: give --data-dir, or set TRAIND_DATA_DIR or HOME"


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x" * 64, "x" * 63),
        ("gpu-box-1.example", "gpu-box-1.example"),
        ("m\u00fcller/../box", "m-ller-..-box"),
        ("", "worker"),
    ],
)
def test_a_machine_s_name_becomes_a_worker_s(machine: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: machine)
    assert default_name() == name


def test_a_worker_of_the_longest_name_trains(service: Service, start: StartWorker, queue: str) -> None:
    name = "x" * 63
    with start(name) as worker:
        assert service.wait_final(service.submit(BRIEF, queue=queue)).state == "succeeded"
        assert (worker.scratch / f"health-{name}.json").exists()


@pytest.mark.parametrize("variable", ["TRAIND_SCRATCH_DIR", "TRAIND_CACHE_DIR", "TRAIND_FASHION_MNIST_DIR"])
def test_a_path_that_is_not_utf_8_is_refused(variable: str, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    environment = os.environb | {variable.encode(): folder}
    done = subprocess.run([sys.executable, "-m", "worker"], env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode() == f"{variable}: the path is not UTF-8; choose a folder with another name\n"
    assert not Path(os.fsdecode(folder)).exists()
