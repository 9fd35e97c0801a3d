"""The data folder: which are refused, and who holds one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local import account as accounts
from local import folders
from local.errors import DataDirError
from local.servers import Servers

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataDirError, match="not empty and no data folder"):
        folders.make(tmp_path)


def test_a_file_and_a_folder_in_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(DataDirError, match="choose another --data-dir"):
            folders.make(path)


def test_ours_may_be_made_again(tmp_path: Path) -> None:
    folders.make(tmp_path / "a" / "b")
    lock = folders.lock(tmp_path / "a" / "b", patience_seconds=0, busy=lambda: False)
    assert lock is not None
    os.close(lock)
    folders.make(tmp_path / "a" / "b")


@AS_ROOT
def test_somebody_else_s_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12_345, 12_345)
    with pytest.raises(DataDirError, match="belongs to another user"):
        folders.make(tmp_path)


@AS_ROOT
def test_one_that_the_servers_user_can_t_reach_is_refused_with_the_reason(
    data_dir: Path, servers_in: Callable[[], Servers]
) -> None:
    closed = data_dir / "closed"
    inner = closed / "inner"
    data_dir.chmod(0o711)
    closed.mkdir(mode=0o700)
    folders.make(inner)
    account = accounts.for_servers(inner / "postgres")
    with pytest.raises(DataDirError) as caught:
        folders.admit(inner, account)
    assert f"may not enter {closed} (mode 0700)" in str(caught.value)
    assert f"chmod o+x {closed}" in str(caught.value)
    assert closed.stat().st_mode & 0o777 == 0o700
    closed.chmod(0o711)
    folders.admit(inner, account)


def test_a_lock_lasts_until_the_last_process_that_holds_it(data_dir: Path) -> None:
    lock = folders.lock(data_dir, patience_seconds=0, busy=lambda: False)
    assert lock is not None
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    try:
        os.close(lock)
        assert folders.lock(data_dir, patience_seconds=0, busy=lambda: False) is None
        assert folders.lock(data_dir, patience_seconds=600, busy=lambda: True) is None
    finally:
        holder.communicate(b"\n")
    again = folders.lock(data_dir, patience_seconds=0, busy=lambda: False)
    assert again is not None
    os.close(again)
