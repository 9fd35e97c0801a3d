"""As whom the embedded servers run: as ourselves, or, where we are root, as the system user `traind`.

PostgreSQL refuses to run as root, and its initdb wants a user that the system knows.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from local.errors import LocalError

USER_NAME = "traind"
USERADD = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]


@dataclass(frozen=True)
class Account:
    """Another user than ourselves, whose process we start as root."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether a process of this user may pass through `folder`."""
        return self._test("-x", folder)

    def can_run(self, program: Path) -> bool:
        return self._test("-x", program)

    def _test(self, what: str, path: Path) -> bool:
        """Asked of the system by a process of that user: mode bits alone don't tell (ACLs, mounts)."""
        command = ["/usr/bin/env", "test", what, str(path)]
        return subprocess.run(command, user=self.uid, group=self.gid, extra_groups=[], cwd="/").returncode == 0

    def own(self, folder: Path) -> None:
        os.chown(folder, self.uid, self.gid)


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
    """Make the user. Another `traind up` may be doing the same: useradd then finds it there, or the lock taken."""
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    said = "there is no useradd here"
    for _ in range(20 if useradd else 0):
        done = subprocess.run([*[useradd or ""], *USERADD[1:], "--user-group", USER_NAME], capture_output=True, text=True)
        if entry := _entry():
            return entry
        said = done.stderr.strip()
        time.sleep(0.1)
    raise LocalError(
        f"PostgreSQL does not run as root, and the system user {USER_NAME!r} that it should run as can't be made ({said})."
        f" Make a system user named {USER_NAME!r}, or run traind as an ordinary user, or set TRAIND_DATABASE_URL and"
        " TRAIND_REDIS_URL to servers of your own."
    )
