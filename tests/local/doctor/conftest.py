"""Doctor in this process, on servers that a test chooses; torch is asked once for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.doctor import machine, target
from local.doctor.examine import examine
from local.doctor.findings import Finding
from local.doctor.machine import Torch

Examine = Callable[..., list[Finding]]
NOBODY = 65_534


@pytest.fixture(scope="session")
def probed() -> Torch:
    return machine.probe()


@pytest.fixture
def examined(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probed: Torch
) -> Examine:
    """Findings with the test's own database, or what `environment` names in its place."""

    def run(**environment: str) -> list[Finding]:
        servers = {"TRAIND_DATABASE_URL": database_url, "TRAIND_REDIS_URL": redis_url}
        for name, value in (servers | environment).items():
            monkeypatch.setenv(name, value)
        return examine(target.find(tmp_path / "nothing"))

    monkeypatch.setattr(machine, "probe", lambda: probed)
    return run


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that the test may not enter: root, who may enter all, is nobody meanwhile."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    own = os.geteuid()
    if own == 0:
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(own)
    folder.chmod(0o700)
