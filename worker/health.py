"""The health file of a worker, and the check that reads it: `python -m worker.health` exits with 0 or 1.

The file holds the time (boottime, which no clock setting moves) at which the worker was last seen to be well; it is
found by the worker's name under the scratch folder. Made for a container's health check.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import sys
from pathlib import Path

from jobs.settings import InvalidSettings, load
from worker.clock import boottime

FRESH_SECONDS = 30.0
MOST_NAME_CHARACTERS = 63
"""As in a name of a host, or an application_name of Postgres."""


def default_name() -> str:
    """The name of a worker that was given none: its machine's, cut to what a name may be."""
    return re.sub(r"[^\w.-]", "-", platform.node(), flags=re.ASCII)[:MOST_NAME_CHARACTERS] or "worker"


def write_health(scratch_dir: Path, name: str, *, trouble: str | None = None) -> None:
    """This worker is well now, or ill of `trouble`. Raises OSError; the former file is then gone, if it can be."""
    path = _path(scratch_dir, name)
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        fresh.write_text(json.dumps({"pid": os.getpid(), "boottime": boottime(), "trouble": trouble}))
        fresh.replace(path)
    except OSError:
        for file in (fresh, path):
            with contextlib.suppress(OSError):
                file.unlink()
        raise


def is_healthy(scratch_dir: Path, name: str) -> bool:
    """Whether a worker of this name was well within the last FRESH_SECONDS."""
    return trouble_of(scratch_dir, name) is None


def trouble_of(scratch_dir: Path, name: str) -> str | None:
    """Why a worker of this name is not healthy; None if it was well within the last FRESH_SECONDS."""
    unseen = f"worker {name} was not seen well within the last {FRESH_SECONDS:g} s"
    try:
        seen = json.loads(_path(scratch_dir, name).read_text())
        fresh = 0 <= boottime() - seen["boottime"] < FRESH_SECONDS
    except (OSError, ValueError, KeyError, TypeError):
        return unseen
    return (f"worker {name} is ill: {seen['trouble']}" if seen.get("trouble") else None) if fresh else unseen


def _path(scratch_dir: Path, name: str) -> Path:
    return scratch_dir / f"health-{name}.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.health", description="Exit code 0 if the worker is well.")
    parser.add_argument("--name", default=default_name(), help="the worker's name (default: this machine's)")
    name = parser.parse_args().name
    try:
        trouble = trouble_of(load().scratch_dir, name)
    except InvalidSettings as error:
        trouble = str(error)
    if trouble is None:
        return 0
    sys.stderr.write(f"{trouble}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
