"""Doctor in this process, on servers that a test chooses; torch is asked once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local.doctor import machine, target
from local.doctor.examine import examine
from local.doctor.findings import Finding
from local.doctor.machine import Torch

Examine = Callable[..., list[Finding]]


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
