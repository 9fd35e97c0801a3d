"""Which servers and which folders doctor looks at: those of the settings, or those of a local service's data folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jobs.log import redact
from jobs.settings import NO_HOME, Settings, load
from local import folders
from local.redis import Redis
from traind import service
from traind.service import ServiceInfo

SHORTEST_SECRET = 4


@dataclass(frozen=True)
class Target:
    """A URL is None where that server is embedded and there is none now."""

    settings: Settings
    data_dir: Path
    info: ServiceInfo | None
    """The running `traind up` of the data folder."""
    database_url: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)
    database_embedded: bool
    redis_embedded: bool
    scratch_dir: Path

    def without_secrets(self, text: str) -> str:
        """`text` without the passwords of the servers, wherever it came from."""
        for url in (self.database_url, self.redis_url):
            for secret in _passwords(url):
                text = text.replace(secret, "***")
        return redact(text)


def find(data_dir: Path | None) -> Target:
    """By the settings and, for what they leave out, the data folder. Raises InvalidSettings, PermissionError."""
    settings = load()
    folder = _folder(data_dir, needed=settings.database_url is None)
    given = [None if url is None else url.get_secret_value() for url in (settings.database_url, settings.redis_url)]
    embedded = [url is None for url in given]
    info = _running(folder) if any(embedded) or folder.exists() else None
    return Target(
        settings=settings,
        data_dir=folder,
        info=info,
        database_url=given[0] or (_postgres_url(folder) if info else None),
        redis_url=given[1] or (_redis_url(folder) if info else None),
        database_embedded=embedded[0],
        redis_embedded=embedded[1],
        scratch_dir=_scratch_dir(settings, folder, local=any(embedded)),
    )


def _folder(data_dir: Path | None, *, needed: bool) -> Path:
    """Who names the servers needs no data folder, and so no home. Raises NoHome."""
    try:
        return service.locate(data_dir)
    except service.NoHome:
        if needed:
            raise
        return NO_HOME


def _running(folder: Path) -> ServiceInfo | None:
    """Needs psutil, which is there wherever `traind up` is."""
    try:
        from local import running
    except ImportError:
        return None
    return running.find(folder)


def _postgres_url(folder: Path) -> str | None:
    """None where the running service has no Postgres of its own."""
    from local.postgres import Postgres

    cluster = Postgres(folder / "postgres", folders.sockets(folder), programs=folder, log=folder, account=None)
    return cluster.url() if cluster.password_file.exists() else None


def _redis_url(folder: Path) -> str | None:
    server = Redis(executable=folder, sockets=folders.sockets(folder), log=folder, account=None)
    return server.url if server.sockets.exists() else None


def _scratch_dir(settings: Settings, folder: Path, *, local: bool) -> Path:
    """As `traind up` sets it, where it is the one to do so."""
    if local and not os.environ.get("TRAIND_SCRATCH_DIR"):
        return folder / "scratch"
    return settings.scratch_dir


def _passwords(url: str | None) -> list[str]:
    try:
        written = urlsplit(url or "").password or ""
    except ValueError:
        written = ""
    known = {written, unquote(written), os.environ.get("PGPASSWORD", "")}
    return [secret for secret in known if len(secret) >= SHORTEST_SECRET]
