"""Which servers doctor looks at, and that it keeps their passwords to itself."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from jobs.settings import InvalidSettings
from local.doctor import target
from local.doctor.examine import examine
from local.doctor.findings import Level
from traind import service
from traind.service import ServiceInfo


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TRAIND_", "PG")):
            monkeypatch.delenv(name)


def run_in(folder: Path) -> None:
    """This process is the service of the folder; its address answers nothing."""
    started = datetime.fromtimestamp(psutil.Process().create_time(), UTC).isoformat()
    service.write(ServiceInfo("http://127.0.0.1:1", "td_secret", os.getpid(), started, str(folder)))


def test_without_a_service_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    found = target.find(tmp_path / "none")
    assert (found.info, found.database_url, found.redis_url) == (None, None, None)
    assert (found.database_embedded, found.redis_embedded) == (True, True)
    assert found.scratch_dir == tmp_path / "none" / "scratch"


def test_the_servers_of_a_running_service_are_found_in_its_folder(tmp_path: Path) -> None:
    run_in(tmp_path)
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "password").write_text("battery\n")
    (tmp_path / "short").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "short")
    found = target.find(tmp_path)
    assert found.info is not None
    assert found.database_url == f"postgresql://traind:battery@/traind?host={tmp_path}/short&port=5432"
    assert found.redis_url == f"unix://{tmp_path}/short/redis.sock"
    assert "battery" not in repr(found)


def test_settings_win_over_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in(tmp_path)
    monkeypatch.setenv("TRAIND_DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("TRAIND_SCRATCH_DIR", str(tmp_path / "elsewhere"))
    found = target.find(tmp_path)
    assert (found.database_url, found.database_embedded, found.redis_embedded) == ("postgresql://h/d", False, True)
    assert found.scratch_dir == tmp_path / "elsewhere"


def test_a_service_with_a_database_of_other_settings_says_so(tmp_path: Path) -> None:
    run_in(tmp_path)
    found = [each for each in examine(target.find(tmp_path)) if each.check == "service"]
    assert [each.level for each in found] == [Level.ERROR, Level.WARNING]
    assert "TRAIND_DATABASE_URL" in (found[1].fix or "")


def test_unusable_settings_name_the_variable_and_not_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIND_LEASE_SECONDS", "battery")
    with pytest.raises(InvalidSettings, match="TRAIND_LEASE_SECONDS") as raised:
        target.find(tmp_path)
    assert "battery" not in str(raised.value)


@pytest.mark.parametrize("text", ["it said horse/battery", "it said horse%2Fbattery", "redis://:horse@h", "staple!"])
def test_no_password_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TRAIND_DATABASE_URL", "postgresql://u:horse%2Fbattery@h/d")
    monkeypatch.setenv("TRAIND_REDIS_URL", "redis://h")
    monkeypatch.setenv("PGPASSWORD", "staple")
    said = target.find(tmp_path).without_secrets(text)
    assert "***" in said
    assert not [word for word in ("horse", "battery", "staple") if word in said]
