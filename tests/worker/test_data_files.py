"""Which datasets a worker's machine cannot read: what a look finds, and what a trainer found."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.catalog.datasets import FASHION_MNIST
from jobs.settings import Settings
from worker import data_files
from worker.data_files import DataFiles

FILES = [f"{source}.gz" for source in FASHION_MNIST.sources]


def watched(folder: Path, url: str | None = None) -> DataFiles:
    return DataFiles(Settings(fashion_mnist_dir=folder, cache_dir=folder / "cache", fashion_mnist_url=url))


def looked(data: DataFiles) -> dict[str, str]:
    data.look()
    return data.lacks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files are there, whatever is in them; one of them in the cache."""
    (tmp_path / "cache" / "fashion-mnist").mkdir(parents=True)
    for name in FILES[1:]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "cache" / "fashion-mnist" / FILES[0]).write_bytes(b"x")
    return tmp_path


def test_each_look_finds_whether_all_files_are_there(folder: Path) -> None:
    data = watched(folder)
    assert data.lacks == {}
    (folder / FILES[-1]).unlink()
    (why,) = looked(data).values()
    assert why.startswith(f"{FILES[-1]} is neither in {folder} nor in {folder}/cache/fashion-mnist: install")
    (folder / FILES[-1]).symlink_to("/proc/self/mem")  # its first byte cannot be read
    (why,) = looked(data).values()
    assert why.startswith(f"{folder / FILES[-1]} cannot be read (Input/output error)")
    (folder / FILES[-1]).unlink()
    (folder / FILES[-1]).write_bytes(b"x")
    assert looked(data) == {}


def test_what_a_trainer_could_not_read_is_given_up_until_a_file_changes(folder: Path) -> None:
    data = watched(folder)
    data.refuse("fashion_mnist", data.stamp("fashion_mnist"), "it is torn")
    assert data.lacks == {"fashion_mnist": "it is torn"}
    assert looked(data) == {"fashion_mnist": "it is torn"}
    (folder / FILES[1]).write_bytes(b"xx")
    assert looked(data) == {}


def test_a_file_that_changed_since_the_trainer_read_it_is_another(folder: Path) -> None:
    data = watched(folder)
    before = data.stamp("fashion_mnist")
    (folder / FILES[1]).write_bytes(b"xx")
    data.refuse("fashion_mnist", before, "it is torn")
    assert data.lacks == {}


def test_what_ships_with_the_package_is_mended_by_a_new_start(folder: Path) -> None:
    data = watched(folder)
    data.refuse("digits", data.stamp("digits"), "install traind again")
    assert looked(data) == {"digits": "install traind again"}


def test_what_can_be_downloaded_is_tried_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = watched(tmp_path, url="http://127.0.0.1:9")
    assert data.lacks == {}
    data.refuse("fashion_mnist", data.stamp("fashion_mnist"), "no answer")
    assert looked(data) == {"fashion_mnist": "no answer"}
    monkeypatch.setattr(data_files, "DOWNLOAD_AGAIN_SECONDS", 0.0)
    data.refuse("fashion_mnist", data.stamp("fashion_mnist"), "no answer")
    assert looked(data) == {}
