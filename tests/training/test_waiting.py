"""OpenMP's waiting threads sleep, in every process that trains, unless the user says otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.training.waiting import OWN_SETTINGS, let_threads_sleep

# Between two regions of OpenMP the second thread waits for 0.2 s: asleep it takes no CPU time, spinning nearly all.
WAITS = """
import resource, sys, time
{first}
import torch
torch.set_num_threads(2)
a = torch.randn(600, 600)
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
a @ a
(a * a).sum()
before = used()
for _ in range(20):
    (a * a).sum()
    time.sleep(0.05)
print(used() - before)
"""


def environment(**given: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS} | given


def cpu_seconds(first: str, **given: str) -> float:
    code = WAITS.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**given), capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def test_waiting_threads_take_no_cpu_time() -> None:
    ours = "from worker.training.waiting import let_threads_sleep; let_threads_sleep()"
    asleep, spinning = cpu_seconds(ours), cpu_seconds("", OMP_WAIT_POLICY="ACTIVE")
    assert asleep < spinning / 2


@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_a_users_own_setting_wins(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in OWN_SETTINGS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "17")
    let_threads_sleep()
    assert {other: os.environ[other] for other in OWN_SETTINGS if other in os.environ} == {name: "17"}


SPEC = {"dataset": {"name": "digits"}, "model": {"name": "linear"}, "optimizer": {"name": "sgd"}}
PROBE = """
import importlib.abc, os, sys
class Probe(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            open({path!r}, "w").write(os.environ.get("OMP_WAIT_POLICY", "unset"))
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Probe())
"""


def test_it_is_set_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(SPEC | {"training": {"steps": 1}}))
    (tmp_path / "seen").write_text("torch was not loaded")
    code = PROBE.format(path=str(tmp_path / "seen")) + "from worker.training.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(tmp_path / "spec.json"), "--out", str(tmp_path)]
    subprocess.run(command, env=environment(), capture_output=True, check=True)
    assert (tmp_path / "seen").read_text() == "PASSIVE"


FORK_SERVER = """
from multiprocessing.forkserver import _forkserver
from worker.process import warm_up
warm_up("cpu")
print(open(f"/proc/{_forkserver._forkserver_pid}/environ").read())
"""


def test_a_workers_fork_server_has_it() -> None:
    """Every trainer of a worker is a copy of it."""
    command = [sys.executable, "-c", FORK_SERVER]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "OMP_WAIT_POLICY=PASSIVE" in done.stdout.split("\0")
