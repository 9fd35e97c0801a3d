"""The CLI, run as a user runs it (`python -m traind`, a process of its own) or, where many cases are tried, in here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from traind.cli.app import build

QUIET = ("TRAIND_URL", "TRAIND_API_KEY", "TRAIND_DATA_DIR", "FORCE_COLOR", "COLUMNS")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would lead the CLI elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in QUIET} | changes


def traind(
    *arguments: str | Path, env: Mapping[str, str] | None = None, stdin: str | bytes = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the CLI to its end; standard input is `stdin`, never the tests' own."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "traind", *map(str, arguments)],
        env=dict(env or environment()),
        input=given,
        capture_output=True,
        timeout=100,
        check=False,
        cwd=cwd,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Here:
    """The CLI in this process: the same application and streams, without half a second of start-up."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        for name in QUIET:
            self._monkeypatch.delenv(name, raising=False)
        for name, value in (env or {}).items():
            self._monkeypatch.setenv(name, value)
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            build()(list(map(str, arguments)), prog_name="traind")
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, out, err)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(capsys, monkeypatch)
