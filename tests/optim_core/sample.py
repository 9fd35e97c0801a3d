"""Which cases run once more at another CPU level or under a sanitizer: a sample that the commit draws, so that in time
all of them do. `make test-all` (pytest's `--whole`) takes all. The copies of these tests that are run elsewhere read it
from the environment.
"""

import math
import os
import subprocess
from collections import defaultdict
from pathlib import Path
from zlib import crc32

import pytest

ROOT = Path(__file__).parents[2]
VARIABLE = "OPTIM_CORE_SAMPLE"


def commit() -> str:
    """HEAD, which draws the sample; nothing if there is no repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def one_in(count: int, config: pytest.Config) -> dict[str, str]:
    """Environment in which pytest runs one case in `count` of each test in this folder, at least one of each."""
    return {} if config.getoption("whole") else {VARIABLE: f"{count}:{commit()}"}


def draw(items: list[pytest.Item]) -> None:
    """Leave those that the environment asks for, in their order."""
    count, _, seed = os.environ.get(VARIABLE, "1:").partition(":")
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    drawn = set()
    for of_a_test in cases.values():
        by_seed = sorted(of_a_test, key=lambda item: crc32(f"{seed} {item.nodeid}".encode()))
        drawn |= set(by_seed[: math.ceil(len(by_seed) / int(count))])
    items[:] = [item for item in items if item in drawn]
