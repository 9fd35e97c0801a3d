"""Which `traind up` runs in a data folder: `service.json`, believed only while its process lives."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import psutil

from local import folders
from traind import service
from traind.service import ServiceInfo

SAME_START_SECONDS = 2.0


def info(*, url: str, api_key: str, data_dir: Path) -> ServiceInfo:
    """This process as the running service."""
    return ServiceInfo(
        url=url,
        api_key=api_key,
        pid=os.getpid(),
        started_at=datetime.fromtimestamp(psutil.Process().create_time(), UTC).isoformat(),
        data_dir=str(data_dir),
    )


def find(data_dir: Path) -> ServiceInfo | None:
    """The service that runs in `data_dir`; None also where its process is gone and another has its number."""
    known = service.read(data_dir)
    return known if known and _process(known) else None


def end(known: ServiceInfo, *, timeout_seconds: float) -> bool:
    """Ask the service to stop, and wait until the last of its processes has let go of the data folder. False: some
    still run.
    """
    if process := _process(known):
        process.send_signal(signal.SIGTERM)
    lock = folders.lock(Path(known.data_dir), patience_seconds=timeout_seconds, busy=lambda: False)
    if lock is not None:
        os.close(lock)
    return lock is not None


def _process(known: ServiceInfo) -> psutil.Process | None:
    try:
        process = psutil.Process(known.pid)
        age = process.create_time() - datetime.fromisoformat(known.started_at).timestamp()
    except psutil.NoSuchProcess:
        return None
    return process if abs(age) < SAME_START_SECONDS and process.status() != psutil.STATUS_ZOMBIE else None
