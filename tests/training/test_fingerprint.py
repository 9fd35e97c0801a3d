"""What decides the bits of a run, found without cost to a trainer's start."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from worker.training.fingerprint import cpu_model


def test_a_cpu_that_the_kernel_names_costs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _path: "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    monkeypatch.setattr(platform, "processor", lambda: pytest.fail("`uname` was started"))
    assert cpu_model() == "Some CPU @ 2 GHz"


def test_a_cpu_without_a_name_there_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _path: "processor\t: 0\n")
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    assert cpu_model() == "aarch64"
