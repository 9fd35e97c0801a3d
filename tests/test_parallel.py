"""The tests' own machinery: who runs what in `tests/parallel.py`, and the samples that a commit draws."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import parallel
from tests.optim_core import sample

ROOT = Path(__file__).parents[1]
PLUGINS = ("-p", "no:cacheprovider", "-p", "xdist", "-p", "randomly")
CONFTEST = """
import contextlib, pathlib
import pytest
from tests import parallel
from tests.parallel import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler

ROOT = pathlib.Path(__file__).parent

def note(*words):
    with open(ROOT / "notes", "a") as notes:
        notes.write(" ".join(words) + chr(10))

@contextlib.contextmanager
def start(folder):
    note("start")
    yield {"value": str(folder)}
    note("end", str(folder.exists()))

def pytest_configure_node(node):
    parallel.share(node, start)

@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    yield
    parallel.order(config, items)

def pytest_unconfigure(config):
    parallel.end_shared(config)

def pytest_terminal_summary(terminalreporter, config):
    parallel.say_how_to_repeat(terminalreporter, config)

@pytest.fixture(autouse=True)
def noted(request, pytestconfig):
    given = parallel.shared(pytestconfig)
    note("test", given["workerid"] if given else "here", request.node.nodeid)

@pytest.fixture(scope="module")
def dear():
    note("dear")
"""
FILES = {
    "test_dear.py": "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_dear(dear, n): pass",
    "test_slow.py": "import pytest\n@pytest.mark.slow\n@pytest.mark.parametrize('n', range(4))\ndef test_slow(n): pass",
    "test_fails.py": "def test_fails(): assert False",
    "test_quick.py": "def test_quick(): pass",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(project: Path, *arguments: str) -> tuple[str, list[list[str]]]:
    """What pytest printed, and what the project's tests noted, in order."""
    command = [sys.executable, "-m", "pytest", *PLUGINS, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return done.stdout, [line.split() for line in (project / "notes").read_text().splitlines()]


@pytest.mark.slow
def test_units_stay_together_and_long_ones_come_first(project: Path) -> None:
    printed, notes = run(project, "-n2")
    assert [notes[0], notes[-1]] == [["start"], ["end", "True"]]
    assert sum(note[0] in {"start", "end"} for note in notes) == 2
    tests = [note[1:] for note in notes if note[0] == "test"]
    assert len(tests) == len({name for _, name in tests}) == 12
    assert len({process for process, name in tests if "test_dear" in name}) == notes.count(["dear"]) == 1
    first = {process: next(name for other, name in tests if other == process) for process, _ in tests}
    assert len(first) == 2
    assert all("test_slow" in name for name in first.values())
    assert "make test ARGS=" in printed
    assert "test_fails.py::test_fails" in printed.partition("to repeat it")[2]


@pytest.mark.slow
def test_one_process_starts_no_others(project: Path) -> None:
    _, notes = run(project, "-n0")
    assert {note[1] for note in notes if note[0] == "test"} == {"here"}
    assert "start" not in {note[0] for note in notes}


@pytest.mark.parametrize(
    ("arguments", "processes"),
    [
        (["tests/jobs/test_claim.py"], 0),
        (["tests/a.py::test_b[c]", "tests/b.py", "tests/b.py::test_d"], 0),
        (["tests/a.py", "tests/b.py", "tests/c.py"], parallel.PROCESSES),
        (["tests/jobs"], parallel.PROCESSES),
        ([str(ROOT)], parallel.PROCESSES),
    ],
)
def test_one_or_two_files_are_run_in_one_process(
    arguments: list[str], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    config: Any = SimpleNamespace(args=arguments)
    assert parallel.pytest_xdist_auto_num_workers(config) == processes


@dataclass(frozen=True)
class _Item:
    nodeid: str


def drawn(monkeypatch: pytest.MonkeyPatch, count: int, seed: str) -> list[str]:
    names = [*(f"test_a.py::test_many[{n}]" for n in range(40)), "test_a.py::test_one", "test_b.py::test_many[x]"]
    items: Any = [_Item(name) for name in names]
    monkeypatch.setenv(sample.VARIABLE, f"{count}:{seed}")
    sample.draw(items)
    return [item.nodeid for item in items]


def test_a_commit_draws_one_sample_and_many_draw_all(monkeypatch: pytest.MonkeyPatch) -> None:
    one = drawn(monkeypatch, 8, "abc")
    assert one == drawn(monkeypatch, 8, "abc") != drawn(monkeypatch, 8, "abd")
    assert (len(one), one[-2:]) == (7, ["test_a.py::test_one", "test_b.py::test_many[x]"])
    seen = {name for commit in range(60) for name in drawn(monkeypatch, 8, f"{commit:07x}")}
    assert len(seen) == len(drawn(monkeypatch, 1, "abc")) == 42


def test_whole_takes_all(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytestconfig.option, "whole", False)
    assert sample.one_in(8, pytestconfig) == {sample.VARIABLE: f"8:{sample.commit()}"}
    monkeypatch.setattr(pytestconfig.option, "whole", True)
    assert sample.one_in(8, pytestconfig) == {}
