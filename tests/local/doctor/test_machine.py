"""What doctor says of this machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from local.doctor import disks, machine
from local.doctor.disks import AMPLE_FREE_BYTES, LARGEST_AT_ONCE, LEAST_FREE_BYTES, Place
from local.doctor.findings import Level
from local.doctor.machine import Torch
from tests.local.doctor.judged import bad

HERE = {"python": "3.11.7", "traind": "0.1.0", "torch": "2.13.0", "numpy": "2.4"}


@pytest.mark.parametrize(
    ("ahead", "level", "says"),
    [
        (0.0, Level.OK, ""),
        (5.0, Level.WARNING, "ahead of"),
        (-5.0, Level.WARNING, "behind"),
        (3_600.0, Level.ERROR, "ahead of"),
        (-3_600.0, Level.ERROR, "behind"),
    ],
)
def test_a_clock_beside_the_databases(engine: Engine, ahead: float, level: Level, says: str) -> None:
    finding = machine.clock(engine, lease_seconds=60.0, now=lambda: time.time() + ahead)
    assert finding.level is level
    assert says in finding.what
    if level is not Level.OK:
        assert "no job is lost" in finding.what
        assert "NTP" in (finding.fix or "")


@pytest.mark.parametrize(
    ("skew", "uncertainty", "level"),
    [
        (0.99, 0.0, Level.OK),
        (1.01, 0.0, Level.WARNING),
        (-1.5, 0.6, Level.OK),
        (-2.0, 0.6, Level.WARNING),
        (60.5, 1.0, Level.WARNING),
        (-61.5, 1.0, Level.ERROR),
    ],
)
def test_a_slow_answer_is_no_skew(skew: float, uncertainty: float, level: Level) -> None:
    assert machine.judge_clock(skew, uncertainty, 60.0).level is level


def test_versions_that_differ_are_named() -> None:
    workers = [("a", HERE), ("b", HERE | {"torch": "2.12.0"}), ("c", HERE | {"traind": "0.2.0", "torch": "2.12.0"})]
    found = list(machine.versions(HERE, workers))
    assert bad(found) == [("versions", Level.WARNING)] * 2
    traind, torch = found
    assert traind.what == "traind differs: 0.1.0 here, a, b; 0.2.0 c"
    assert torch.what == "torch differs: 2.13.0 here, a; 2.12.0 b, c"


def test_versions_that_are_equal_or_unknown_are_fine() -> None:
    (finding,) = machine.versions(HERE, [("a", HERE), ("old", {"traind": "0.1.0"})])
    assert finding.level is Level.OK
    assert "torch 2.13.0" in finding.what
    without_torch = {"python": "3.11.7", "traind": "0.1.0"}
    assert [each.level for each in machine.versions(without_torch, [("a", HERE)])] == [Level.OK]


def test_what_is_installed_here() -> None:
    assert machine.installed().keys() == {"python", "traind", "torch", "numpy"}


def test_the_kernel_is_asked_of_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIND_KERNEL", "torch")
    found = machine.probe()
    assert (found.kernel, found.problem) == ("torch", None)
    finding = machine.kernel(found, needed=False)
    assert finding.level is Level.WARNING
    assert "TRAIND_KERNEL" in (finding.fix or "")
    monkeypatch.setenv("TRAIND_KERNEL", "nonsense")
    finding = machine.kernel(machine.probe(), needed=True)
    assert finding.level is Level.ERROR
    assert "nonsense" in finding.what


def test_a_torch_that_cannot_be_imported_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13 is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = machine.probe()
    finding = machine.kernel(found, needed=False)
    assert finding.level is Level.ERROR
    assert "libcudart.so.13 is missing" in finding.what


@pytest.mark.parametrize(("needed", "level"), [(False, Level.WARNING), (True, Level.ERROR)])
def test_without_torch_only_the_machine_of_a_worker_is_ill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: bool, level: Level
) -> None:
    (tmp_path / "torch.py").write_text("""raise ModuleNotFoundError("No module named 'torch'", name="torch")""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    finding = machine.kernel(machine.probe(), needed=needed)
    assert finding.level is level
    assert "traind[worker]" in (finding.fix or "")


def test_kernels() -> None:
    assert machine.kernel(Torch(kernel="native (avx2)"), needed=True).level is Level.OK
    missing = machine.kernel(Torch(kernel="torch (not built: No module named 'optim_core._kernel')"), needed=True)
    assert missing.level is Level.WARNING
    assert "C compiler" in (missing.fix or "")


@pytest.mark.parametrize(
    ("found", "wanted", "driver", "level", "says"),
    [
        (Torch(), False, None, Level.OK, "none"),
        (Torch(cuda="13.0"), False, "580.1", Level.OK, "580.1"),
        (Torch(cuda="13.0", gpus=("H100",)), True, "580.1", Level.OK, "1: H100"),
        (Torch(cuda="13.0", gpus=("H100",)), False, "580.1", Level.OK, "unused"),
        (Torch(), True, None, Level.ERROR, "install the NVIDIA driver"),
        (Torch(), True, "580.1", Level.ERROR, "built for CUDA"),
        (Torch(cuda="13.0", gpu_error="busy"), True, "580.1", Level.ERROR, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_gpus(found: Torch, wanted: bool, driver: str | None, level: Level, says: str) -> None:
    finding = machine.gpu(found, wanted=wanted, driver=driver)
    assert finding.level is level
    assert says in f"{finding.what} {finding.fix}"


def test_the_drivers_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    assert machine.driver() is None
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\n")
    assert machine.driver() == "580.95.05"


@pytest.mark.parametrize(
    ("free", "level"), [(10e9, Level.OK), (3e9, Level.WARNING), (1e9, Level.ERROR), (0, Level.ERROR)]
)
def test_room_beside_the_largest_checkpoint(tmp_path: Path, free: float, level: Level) -> None:
    scratch, data, cluster = disks.places(tmp_path, tmp_path, tmp_path, largest=500_000_000, wal=4_000_000_000)
    assert (scratch.needed, scratch.ample) == (500e6 * LARGEST_AT_ONCE, 1e9 * LARGEST_AT_ONCE)
    finding = disks.disk(scratch, free=free)
    assert (finding.check, finding.level) == ("disk scratch", level)
    assert (data.needed, data.ample) == (LEAST_FREE_BYTES, AMPLE_FREE_BYTES)
    assert cluster.ample == 6e9


def test_room_is_asked_of_the_system_also_for_what_is_not_there_yet(tmp_path: Path) -> None:
    assert disks.disk(Place("scratch", tmp_path / "a" / "b", 1, 2)).level is Level.OK
    assert disks.disk(Place("scratch", tmp_path / "a" / "b", 1e18, 1e18)).level is Level.ERROR


def test_a_folder_that_cannot_be_written() -> None:
    finding = disks.disk(Place("scratch", Path("/proc/sys"), 1, 2))
    assert finding.level is Level.ERROR
    assert "cannot be written" in finding.what


def test_a_folder_that_cannot_be_looked_at(closed: Path) -> None:
    finding = disks.disk(Place("scratch", closed / "scratch", 1, 2))
    assert finding.level is Level.ERROR
    assert f"{closed / 'scratch'} cannot be looked at: Permission denied" in finding.what


def test_only_the_scratch_folder_counts_with_external_servers(tmp_path: Path) -> None:
    assert [place.name for place in disks.places(tmp_path, None, None, largest=0, wal=0)] == ["scratch"]
