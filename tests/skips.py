"""Pytest hooks: the count of skipped tests is printed, and in CI one that is skipped for anything but the lack of a
GPU fails the run. Imported by conftest.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from tests import parallel

ALLOWED = "no GPU"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _unexcused(reporter: pytest.TerminalReporter) -> list[str]:
    skipped: Iterable[pytest.TestReport] = reporter.stats.get("skipped", [])
    return [f"{report.nodeid}: {_reason(report)}" for report in skipped if ALLOWED not in _reason(report)]


def _reporter(config: pytest.Config) -> pytest.TerminalReporter | None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter if isinstance(reporter, pytest.TerminalReporter) else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = _reporter(session.config)
    if reporter and os.environ.get("CI") and _unexcused(reporter) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped, unexcused = terminalreporter.stats.get("skipped", []), _unexcused(terminalreporter)
    terminalreporter.write_line(f"skipped: {len(skipped)}, of which without a GPU {len(skipped) - len(unexcused)}")
    for line in unexcused if os.environ.get("CI") else []:
        terminalreporter.write_line(f"FAILED by a skip that CI does not allow: {line}", red=True)
    parallel.say_how_to_repeat(terminalreporter, config)
