"""The data folder's place, and `service.json`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from traind import service
from traind.service import ServiceInfo


def info(data_dir: Path) -> ServiceInfo:
    return ServiceInfo("http://127.0.0.1:1", "td_secret", 1, "2026-11-22T12:00:00+00:00", str(data_dir))


def test_it_is_read_as_written_and_private(tmp_path: Path) -> None:
    path = service.write(info(tmp_path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert service.read(tmp_path) == info(tmp_path)
    service.remove(tmp_path)
    service.remove(tmp_path)
    assert service.read(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"url": 1}', '"x"', "null", "\x00"])
def test_a_damaged_one_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / service.FILE_NAME).write_text(text)
    assert service.read(tmp_path) is None


def test_a_time_that_is_none_is_damage(tmp_path: Path) -> None:
    path = service.write(info(tmp_path))
    path.write_text(path.read_text().replace("2026-11-22T12", "yesterday"))
    assert service.read(tmp_path) is None


def test_the_key_is_not_shown() -> None:
    assert "td_secret" not in repr(info(Path("/")))


def test_where_the_data_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert service.locate("x", environ={"TRAIND_DATA_DIR": "/y"}) == tmp_path / "x"
    assert service.locate(environ={"TRAIND_DATA_DIR": "/y/../z"}) == Path("/z")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert service.locate(environ={"XDG_DATA_HOME": "/x"}) == Path("/var/lib/traind")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert service.locate(environ={"XDG_DATA_HOME": "/x"}) == Path("/x/traind")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert service.locate(environ={}) == tmp_path / ".local/share/traind"
