"""Half a minute of `make chaos`: the jobs of the real service survive a kill in every phase and of every kind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.chaos.mischief import KINDS
from tests.chaos.phases import PHASES

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
    assert result["witness"]["trainers"] >= result["jobs"]
    assert result["recover_seconds"]["killed"]["n"] > 0
