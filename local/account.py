"""As whom the embedded servers run: as ourselves, or, where we are root, as the system user `traind`.

PostgreSQL refuses to run as root, and its initdb wants a user that the system knows.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.errors import LocalError

USER_NAME = "traind"
USERADD_OPTIONS = [
    "--system",
    "--user-group",
    "--no-create-home",
    "--home-dir=/nonexistent",
    "--shell=/usr/sbin/nologin",
]
USERADD_TRIES = 20


@dataclass(frozen=True)
class Account:
    """Another user than ourselves, whose processes we start as root."""

    name: str
    uid: int
    gid: int

    def can_pass(self, path: Path) -> bool:
        """Whether a process of this user may enter the folder or run the program `path`. The system is asked: mode
        bits alone don't tell (ACLs, mounts).
        """
        return run_as(self, ["/usr/bin/env", "test", "-x", str(path)]).returncode == 0

    def own(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)


def run_as(
    account: Account | None, command: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `account` (None: as ourselves), its output captured."""
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env=environment,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def for_servers(existing: Path) -> Account | None:
    """The account of the servers; None: our own. As root it is the owner of the folder `existing`, where there is
    one already, else the system user `traind`, which is made if it is missing.
    """
    if os.geteuid() != 0:
        return None
    if existing.exists() and (owner := existing.stat()).st_uid != 0:
        return Account(_name(owner.st_uid), owner.st_uid, owner.st_gid)
    entry = _entry() or _create()
    return Account(USER_NAME, entry.pw_uid, entry.pw_gid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER_NAME)
    except KeyError:
        return None


def _create() -> pwd.struct_passwd:
    """Make the user. Another `traind up` may be doing the same: useradd then finds it there, or the files locked."""
    said = "there is no useradd here"
    if useradd := shutil.which("useradd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"):
        for _ in range(USERADD_TRIES):
            said = run_as(None, [useradd, *USERADD_OPTIONS, USER_NAME]).stderr.strip()
            if entry := _entry():
                return entry
            time.sleep(0.1)
    raise LocalError(
        f"PostgreSQL does not run as root, and the system user {USER_NAME!r} that it should run as can't be made"
        f" ({said}). Make a system user named {USER_NAME!r}, or run traind as an ordinary user, or set"
        " TRAIND_DATABASE_URL and TRAIND_REDIS_URL to servers of your own."
    )
