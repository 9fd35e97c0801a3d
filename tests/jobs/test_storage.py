"""Room for checkpoints: free space on a real disk, and the quota."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from jobs.database import make_engine
from jobs.settings import Settings
from jobs.storage import MOST_FLOOR_BYTES, Storage
from tests.disks import MEBIBYTE, fill_but, small_disk
from tests.jobs.scenario import add_job, checkpoint, start


def storage(engine: Engine, **given: Any) -> Storage:
    return Storage(engine, Settings(**given))


def test_a_tenth_of_a_small_disk_stays_free(engine: Engine, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 20 * MEBIBYTE) as folder:
        found = storage(engine, database_dir=folder)
        disk = found.disk()
        assert disk is not None
        assert disk.floor == 2 * MEBIBYTE
        assert found.lack() is None
        assert found.lack(9 * MEBIBYTE - 65_536) is None
        too_large = found.lack(9 * MEBIBYTE + 1)
        assert too_large is not None
        assert "the checkpoint takes 18,874,370" in too_large
        fill_but(folder, 2 * MEBIBYTE - 65_536)
        lack = found.lack()
        assert lack is not None
        assert "2,097,152 stay free (TRAIND_MIN_FREE_DISK_BYTES)" in lack
        assert str(folder) in lack
        assert storage(engine, database_dir=folder, min_free_disk_bytes=0).lack() is None


def test_the_floor_of_a_large_disk(engine: Engine, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 20 * MOST_FLOOR_BYTES) as folder:  # memory is taken as files are written
        disk = storage(engine, database_dir=folder).disk()
        assert disk is not None
        assert disk.floor == MOST_FLOOR_BYTES
        assert storage(engine, database_dir=folder, min_free_disk_bytes=2**60).lack() is not None


def test_a_server_behind_a_socket_says_where_its_disk_is(engine: Engine) -> None:
    """If the tests' role may ask; a server behind a network says nothing."""
    query = "SELECT setting FROM pg_settings WHERE name = 'data_directory' AND inet_server_addr() IS NULL"
    with engine.connect() as conn:
        told = conn.execute(text(query)).scalar_one_or_none()
    disk = storage(engine).disk()
    assert (None if disk is None else str(disk.folder)) == told


def test_a_server_that_does_not_say_cannot_be_looked_at(engine: Engine, database_url: str) -> None:
    """A role that may not ask is told nothing; the quota holds all the same."""
    with engine.begin() as conn:
        superuser = conn.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar_one()
        role = "pg_signal_backend" if superuser else conn.execute(text("SELECT current_user")).scalar_one()
        conn.execute(text(f'GRANT SELECT ON blob TO "{role}"'))
    url = make_url(database_url).update_query_dict({"options": f"-c role={role}"})
    asking = make_engine(url.render_as_string(hide_password=False), application_name="tests")
    try:
        assert storage(asking, min_free_disk_bytes=2**60).disk() is None
        assert storage(asking, min_free_disk_bytes=2**60).lack() is None
        assert storage(asking, max_stored_bytes=1).lack(2) is not None
    finally:
        asking.dispose()


def test_a_folder_that_is_gone_is_no_disk(engine: Engine, tmp_path: Path) -> None:
    found = storage(engine, database_dir=tmp_path, min_free_disk_bytes=2**60)
    tmp_path.rmdir()
    assert found.lack() is None


def test_the_quota_counts_all_checkpoints(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id)
    checkpoint(engine, start(engine).lease, 10)
    assert storage(engine).stored_bytes() == 1_000_004
    found = storage(engine, max_stored_bytes=2_000_000)
    assert found.lack(999_996) is None
    lack = found.lack(999_997)
    assert lack is not None
    assert "checkpoints take 1,000,004 bytes of the 2,000,000 that TRAIND_MAX_STORED_BYTES allows" in lack
    assert storage(engine, max_stored_bytes=1_000_004).lack() is not None


@pytest.mark.parametrize(("name", "value"), [("min_free_disk_bytes", -1), ("max_stored_bytes", 0)])
def test_nonsense_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})
