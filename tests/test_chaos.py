"""Half a minute of `make chaos`: the jobs of the real service survive a kill in every phase and of every kind."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.installation import Installation
from tests.chaos.mischief import KINDS, Mischief
from tests.chaos.phases import PHASES
from tests.chaos.witness import Witness

TIMEOUT_SECONDS = 900


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
def test_jobs_survive_chaos() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "30", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["violations"], done.returncode) == ([], 0), done.stderr
    assert {phase for phase in PHASES if result["kills_by_phase"][phase]} == set(PHASES)
    assert {kind for kind in KINDS if result["hits_by_kind"][kind]} == set(KINDS)
    assert result["attempts"] > result["jobs"] > len(PHASES)
    assert result["machine_faults"] > 0
    assert result["witness"]["trainers"] >= result["jobs"]
    assert result["recover_seconds"]["killed"]["n"] > 0


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how the next run ends; its folder is the only one in `tmp_path`."""

    def run(data_dir: Path, *_: object) -> NoReturn:
        (data_dir / "logs").mkdir()
        raise ends[0]

    ends: list[BaseException] = []
    monkeypatch.setattr(chaos, "_run", run)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["chaos", "--seed", "1"])
    return ends.append


def test_a_run_that_breaks_off_keeps_its_folder(
    tmp_path: Path, broken: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(ValueError("no reference"))
    with pytest.raises(ValueError, match="no reference"):
        chaos.main()
    (folder,) = tmp_path.iterdir()
    assert f"kept: {folder / 'logs'}" in capsys.readouterr().err


def test_a_run_that_is_interrupted_leaves_nothing(tmp_path: Path, broken: Any) -> None:
    broken(KeyboardInterrupt())
    assert chaos.main() == 130
    assert list(tmp_path.iterdir()) == []


def test_a_victim_that_does_not_end_is_a_violation(tmp_path: Path) -> None:
    def act() -> bool:
        with subprocess.Popen(["sleep", "60"]) as child:
            try:
                psutil.Process(child.pid).wait(0.01)
            finally:
                child.kill()
        return True

    installation = Installation(tmp_path, print)
    mischief = Mischief(installation, Witness(installation.scratch), random.Random(1), print)
    mischief._act("postgres", {"postgres": act})
    (violation,) = mischief.violations
    assert violation.startswith("postgres: timeout after 0.01 seconds")
