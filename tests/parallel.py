"""Pytest hooks: the tests run side by side in several processes (pytest-xdist), on servers that all of them share.

Imported by conftest.py. More processes than cores, because most tests wait. Tests that share something expensive form a
unit, which one process runs: those of a long-lived service, or of a file with fixtures for the whole file. Units that
take long come first, in random order, so that none of them is left to run alone at the end.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

PROCESSES = 6
ALONE_UP_TO = 2
"""So many files are run in this process: to start others would take longer."""
SHARED = {"tests/traind": "service", "tests/worker": "shared_worker"}
"""Fixtures that start a service and keep it: all tests that use one are a unit."""
WAITING = ("tests/worker/", "tests/local/", "tests/chaos/")
"""Rooms whose tests start processes and wait for them: each test is a unit."""
UNITS = "units.json"
REPEATED = 10
"""Of so many failures the command that repeats one is shown."""
_STACK = pytest.StashKey[ExitStack]()
_INPUT = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto`, the default, means."""
    files = {argument.split("::")[0] for argument in config.args}
    if len(files) <= ALONE_UP_TO and all(name.endswith(".py") for name in files):
        return 0
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or PROCESSES)


def share(node: Any, start: Callable[[Path], AbstractContextManager[dict[str, str]]]) -> None:
    """Hand what all processes share to `node`, a process that is being started; the first one makes `start` run,
    in a folder for it.

    It is ended by `end_shared`, in the process that starts the others.
    """
    stash = node.config.stash
    if _INPUT not in stash:
        stack = stash.setdefault(_STACK, ExitStack())
        folder = tempfile.mkdtemp(prefix="traind-tests-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stash[_INPUT] = {"shared_folder": folder, **stack.enter_context(start(Path(folder)))}
    node.workerinput.update(stash[_INPUT])


def end_shared(config: pytest.Config) -> None:
    config.stash.setdefault(_STACK, ExitStack()).close()


def shared(config: pytest.Config) -> dict[str, str] | None:
    """What the process that started this one has handed to it; None if no other did."""
    return getattr(config, "workerinput", None)


def say_how_to_repeat(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how to repeat what failed: alone, and all of it in the same order."""
    failed = [report for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, [])]
    if not failed:
        return
    seed = f"--randomly-seed={config.getoption('randomly_seed', 'last')}"
    terminalreporter.section("to repeat it")
    for name in list(dict.fromkeys(report.nodeid for report in failed))[:REPEATED]:
        terminalreporter.write_line(f"make test ARGS={shlex.quote(shlex.join([seed, name]))}")
    terminalreporter.write_line(f"all in the same order: make test ARGS={seed}")


def _unit(item: pytest.Item) -> str:
    """The name of the unit to which the test belongs."""
    path = item.nodeid.split("::")[0]
    definitions = [found[-1] for found in item._fixtureinfo.name2fixturedefs.values()]  # type: ignore[attr-defined]
    for room, name in SHARED.items():
        if any((definition.baseid, definition.argname) == (room, name) for definition in definitions):
            return f"{room}: {name}"
    if any(definition.scope in {"module", "class", "package"} for definition in definitions):
        return path
    return item.nodeid if path.startswith(WAITING) or item.get_closest_marker("slow") else path


def _takes_long(unit: str, items: Iterable[pytest.Item]) -> bool:
    return ": " in unit or unit.startswith(WAITING) or any(item.get_closest_marker("slow") for item in items)


def _name_each(items: list[pytest.Item]) -> None:
    """Give each test an id of its own: of tests with the same id only one would be run. Raises UsageError."""
    seen = Counter(item.nodeid for item in items)
    for item in items:
        if seen[item.nodeid] > 1:  # schemathesis: the id lacks the operation, the name has it
            item._id = item.id.with_params(item.name.partition("[")[2].removesuffix("]"))
    doubled = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if doubled:
        raise pytest.UsageError(f"tests with the same id: {', '.join(doubled)}")


def order(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long units first; among them, among the others and within a unit the order stays as it is: random."""
    _name_each(items)
    given = shared(config)
    if given is None:
        return
    units: dict[str, list[pytest.Item]] = {}
    for item in items:
        units.setdefault(_unit(item), []).append(item)
    ordered = sorted(units.items(), key=lambda pair: not _takes_long(*pair))
    items[:] = [item for _, members in ordered for item in members]
    names = {item.nodeid: unit for unit, members in ordered for item in members}
    written = Path(given["shared_folder"], f"{given['workerid']}.json")
    written.write_text(json.dumps(names))
    written.replace(written.with_name(UNITS))


class _ByUnits(LoadScopeScheduling):
    """Gives each process one unit after the other, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False
        self._names: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if not self._names:
            self._names = json.loads(Path(self.config.stash[_INPUT]["shared_folder"], UNITS).read_text())
        return self._names[nodeid]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByUnits:
    return _ByUnits(config, log)
