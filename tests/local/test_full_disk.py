"""A small disk, a job that saves every few steps, and what else fills it: the whole service as a user has it."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.disk import MIB
from local.errors import StartFailed
from local.process import Family
from local.servers import Servers
from tests.disks import fill_but, small_disk
from tests.local.families import assert_gone
from tests.local.up import Up, traind
from tests.worker.service import until
from traind.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DISK_BYTES = 400 * MIB
FLOOR_BYTES = DISK_BYTES // 10
SHORT_LEASE = {"TRAIND_LEASE_SECONDS": "6", "TRAIND_HEARTBEAT_SECONDS": "2"}
GREEDY = {
    "dataset": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [8_000]},
    "optimizer": {"name": "adam"},
    "training": {"steps": 1_000_000, "threads": 1, "checkpoint_every": 20},
    "checkpoints": {"keep_last": None},
}
"""Some 7 MB for every checkpoint, none of which is removed by itself."""


@pytest.fixture
def disk() -> Iterator[Path]:
    """A data folder with a disk of its own, where the servers' user can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="traind-test-"))
    folder.chmod(0o711)
    with small_disk(folder / "disk", DISK_BYTES) as mounted:
        yield mounted
    shutil.rmtree(folder, ignore_errors=True)


def free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def by_command(disk: Path, *arguments: str) -> str:
    """As a user types it."""
    done = traind(*arguments, "--data-dir", str(disk))
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_skipped(client: Client, job_id: str) -> None:
    def kinds() -> set[str]:
        time.sleep(0.2)
        return {event.kind for event in client.events(job_id)}

    until(kinds, lambda seen: "checkpoint-skipped" in seen)


def fill_to_the_reserve(disk: Path) -> Path:
    """As long as the reserve is there: what runs gives room back meanwhile. The reserve's own room is left."""
    reserve, junk = disk / "postgres" / "ballast", disk / "filler"

    def kept() -> bool:
        room = free(disk)
        if reserve.exists():
            with contextlib.suppress(OSError), junk.open("ab", buffering=0) as file:
                file.write(bytes(room))
        time.sleep(0.2)
        return reserve.exists()

    until(kept, lambda there: not there)
    return junk


def degraded(up: Up) -> list[str]:
    with urllib.request.urlopen(f"{up.url}/readyz") as answer:
        return list(json.load(answer)["degraded"])


def test_a_job_does_not_fill_it_and_what_does_can_be_mended(disk: Path, tmp_path: Path) -> None:
    with closing(Up(disk, **SHORT_LEASE)) as up, Client(up.url, up.key()) as client:
        up.wait_for("a reserve of 32 MiB is kept for a full disk")
        first = client.submit(GREEDY).id
        wait_skipped(client, first)
        assert free(disk) > FLOOR_BYTES // 2
        step = client.get(first).progress.step
        until(lambda: client.get(first).progress.step, lambda now: now > step + 40)

        junk = fill_to_the_reserve(disk)
        up.wait_for("the disk is nearly full: a reserve of 32 MiB was released")
        until(lambda: degraded(up), lambda names: names == ["storage"])
        client.cancel(first)
        assert client.wait(first).state == "cancelled"
        by_command(disk, "rm", "--yes", first)
        junk.unlink()
        up.wait_for("a reserve of 32 MiB is kept for a full disk")
        until(lambda: degraded(up), lambda names: not names)

        kept = client.wait(client.submit(GREEDY | {"training": {"steps": 5, "threads": 1}}).id)
        assert kept.state == "succeeded"
        second = client.submit(GREEDY).id
        wait_skipped(client, second)
        all_of_it = up.everything()
        up.process.kill()
        assert_gone(all_of_it)
    junk = fill_but(disk, 0)

    with closing(Up(disk, "--no-worker", **SHORT_LEASE)) as up, Client(up.url, up.key()) as client:
        up.wait_for("the disk is nearly full: a reserve of 32 MiB was released")
        until(lambda: client.cancel(second).state, lambda state: state == "cancelled")
        by_command(disk, "rm", "--yes", second)
        up.wait_for("a reserve of 32 MiB is kept for a full disk")
        (saved,) = client.checkpoints(kept.id)
        client.download(saved.id, tmp_path / "kept.safetensors")
    assert junk.exists()


@pytest.mark.parametrize("reserve", [True, False])
def test_a_server_on_a_full_disk_starts_from_the_reserve_or_says_what_to_do(
    disk: Path, family: Family, reserve: bool
) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"redis_source": "wheel", "ballast": reserve, "report": said.append}
    with Servers(disk, family, **options):
        until(lambda: list(disk.glob("postgres/ballast")), lambda found: len(found) == reserve)
    fill_but(disk, 0)
    if reserve:
        with Servers(disk, family, **options) as servers, psycopg.connect(servers.database_url) as connection:
            connection.execute("CREATE TABLE written (number integer)")
        assert "the disk is nearly full: a reserve of 32 MiB was released" in said[-1]
    else:
        with pytest.raises(StartFailed, match=f"the disk of {disk / 'postgres'} is full: make room there"):
            Servers(disk, family, **options).__enter__()
