"""The data folder of a local service: who may enter what, and who uses it now.

DATA_DIR/            ours; as root the servers' user may pass through it, nobody else may do anything
    up.lock          held by `traind up` and by the guards of its processes, so until the last one has ended
    service.json     while it runs: where, with which key, and who (traind/service.py)
    api-key          the local API key
    postgres/        the database cluster, of the servers' user, and the ballast (local/disk.py)
    run              sockets: a folder, or a link to one under /tmp where this path is too long for a socket
    programs/        copies of the servers' programs, where their user can't reach the originals
    logs/ scratch/
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local.account import Account
from local.errors import DataDirError

LOCK = "up.lock"
SOCKET_FOLDER_BYTES = 107 - len("/.s.PGSQL.5432")  # sun_path less its NUL, less the longer of the two names


def make(data_dir: Path) -> None:
    """Make the data folder if it is missing. Raises DataDirError where it can't be, or where it is none of ours."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        foreign = not (data_dir / LOCK).exists() and any(data_dir.iterdir())
    except OSError as error:
        raise DataDirError(
            f"the data folder {data_dir} can't be used: {error.strerror}; choose another --data-dir"
        ) from error
    if foreign:
        raise DataDirError(f"{data_dir} is not empty and no data folder of traind; choose an empty or new --data-dir")
    if data_dir.stat().st_uid != os.geteuid():
        raise DataDirError(f"the data folder {data_dir} belongs to another user; run traind as that user")


def lock(data_dir: Path, *, patience_seconds: float, busy: Callable[[], bool]) -> int | None:
    """Lock the folder; the lock lasts as long as any process holds the returned descriptor. None: `busy()` says
    that a living `traind up` has it. Processes of a killed one are waited for: they are ending.
    """
    descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy() or time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor


def admit(data_dir: Path, account: Account | None) -> None:
    """Let the servers' user pass through the data folder. Raises DataDirError naming the folder on the way to it
    that stops them.
    """
    data_dir.chmod(0o710 if account else 0o700)
    if account is None:
        return
    os.chown(data_dir, -1, account.gid)
    for folder in (*reversed(data_dir.parents), data_dir):
        if not account.can_pass(folder):
            raise DataDirError(
                f"{data_dir} can't hold the data: PostgreSQL and Redis run as the user {account.name!r}, which may not"
                f" enter {folder} (mode {stat.S_IMODE(folder.stat().st_mode):04o}). Choose a --data-dir that every user"
                f" can reach, such as /var/lib/traind, or allow it: chmod o+x {folder}"
            )


def own_folder(path: Path, account: Account | None) -> Path:
    """Make `path`, mode 0700, of the servers' user."""
    path.mkdir(mode=0o700, exist_ok=True)
    if account:
        account.own(path)
    return path


def open_sockets(data_dir: Path, account: Account | None) -> Path:
    """An empty folder for sockets, mode 0700, of the servers' user, with a path short enough for them."""
    close_sockets(data_dir)
    run = data_dir / "run"
    if len(os.fsencode(run)) <= SOCKET_FOLDER_BYTES:
        return own_folder(run, account)
    short = Path(tempfile.mkdtemp(prefix="traind-", dir="/tmp"))  # TMPDIR may be long too
    run.symlink_to(short)
    return own_folder(short, account)


def sockets(data_dir: Path) -> Path:
    """The folder that `open_sockets` made, by its short path."""
    run = data_dir / "run"
    return run.readlink() if run.is_symlink() else run


def close_sockets(data_dir: Path) -> None:
    """Remove the sockets' folder, also the one that a killed service left."""
    run = data_dir / "run"
    if run.is_symlink():
        shutil.rmtree(run.readlink(), ignore_errors=True)
        run.unlink()
    else:
        shutil.rmtree(run, ignore_errors=True)


def programs(data_dir: Path) -> Path:
    """The folder for copies of programs, made by who puts one there."""
    return data_dir / "programs"


def logs(data_dir: Path) -> Path:
    """The folder for the logs of all processes, ours alone."""
    folder = data_dir / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
