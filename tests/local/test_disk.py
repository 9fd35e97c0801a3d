"""The ballast and the bound of the log, on small disks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.disk import LEAST_WAL_MB, MIB, MOST_WAL_MB, Ballast, Keeper, max_wal_mb
from local.doctor import disks
from local.doctor.findings import Level
from tests.disks import fill_but, small_disk

PATIENT = 30.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 200 * MIB) as folder:
        yield folder


def free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


@pytest.mark.parametrize(("disk_mb", "wal_mb"), [(200, LEAST_WAL_MB), (2_000, 200), (50_000, MOST_WAL_MB)])
def test_the_log_takes_a_tenth_of_the_disk_within_bounds(tmp_path: Path, disk_mb: int, wal_mb: int) -> None:
    with small_disk(tmp_path / "disk", disk_mb * MIB) as folder:  # memory is taken as files are written
        assert max_wal_mb(folder / "not" / "there") == wal_mb


def test_it_takes_real_room_and_gives_it_back(disk: Path) -> None:
    ballast = Ballast(disk, floor=None)
    before = free(disk)
    assert ballast.make()
    assert before - free(disk) == ballast.size == 32 * MIB
    assert not ballast.make()
    assert ballast.release()
    assert not ballast.release()
    assert free(disk) == before


def test_doctor_says_when_it_is_gone_and_when_it_comes_back(disk: Path) -> None:
    ballast = Ballast(disk, floor=None)
    ballast.make()
    assert disks.reserve(ballast).level is Level.OK
    ballast.release()
    found = disks.reserve(ballast)
    assert found.level is Level.WARNING
    assert str(disk / "ballast") in found.what
    assert "released on a nearly full disk" in found.what
    assert found.fix is not None
    assert "as soon as 67.1 MB are free" in found.fix


def test_it_is_not_made_where_checkpoints_need_the_room(disk: Path) -> None:
    """Above the floor there must be room for it; without a floor, as much again as it takes."""
    fill_but(disk, 70 * MIB)
    assert not Ballast(disk, floor=40 * MIB).make()
    assert Ballast(disk, floor=0).make()


def test_it_is_released_when_the_disk_is_nearly_full_and_made_again(disk: Path) -> None:
    said: list[str] = []
    with Keeper(Ballast(disk, floor=None), report=said.append):
        wait(said, "a reserve of 32 MiB is kept")
        junk = fill_but(disk, 26 * MIB)
        time.sleep(1.5)
        assert len(said) == 1
        (disk / "more").write_bytes(bytes(10 * MIB))
        wait(said, "the disk is nearly full: a reserve of 32 MiB was released")
        junk.unlink()
        wait(said, "a reserve of 32 MiB is kept", times=2)
    assert len(said) == 3


def wait(said: list[str], text: str, *, times: int = 1) -> None:
    give_up_at = time.monotonic() + PATIENT
    while sum(text in line for line in said) < times:
        assert time.monotonic() < give_up_at, said
        time.sleep(0.02)
