"""Locates a local service: its data folder and `service.json` in it.

`traind up` writes the file, the CLI reads it. Only the errors are imported, so that the CLI starts quickly; what the
folder holds besides is the business of `local`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from traind.errors import TraindError

FILE_NAME = "service.json"


class NoHome(TraindError):
    """The user has no home folder to look for the service in."""

    code = "no-home"


@dataclass(frozen=True)
class ServiceInfo:
    """A running service. `pid` and `started_at` (ISO 8601, UTC) are those of the process `traind up`."""

    url: str
    api_key: str = field(repr=False)
    pid: int
    started_at: str
    data_dir: str

    def __post_init__(self) -> None:
        if not (isinstance(self.url, str) and isinstance(self.api_key, str) and isinstance(self.pid, int)):
            raise TypeError(f"{FILE_NAME} is damaged")
        datetime.fromisoformat(self.started_at)


def locate(explicit: Path | str | None = None, *, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder, absolute: `explicit`, else TRAIND_DATA_DIR, else /var/lib/traind for root and
    XDG_DATA_HOME/traind (~/.local/share/traind) for everybody else. Need not exist. Raises NoHome.
    """
    chosen = explicit or environ.get("TRAIND_DATA_DIR")
    if chosen:
        return Path(os.path.abspath(Path(chosen).expanduser()))  # noqa: PTH100  keeps symlinks, unlike resolve()
    if os.geteuid() == 0:
        return Path("/var/lib/traind")
    home = environ.get("XDG_DATA_HOME") or "~/.local/share"
    try:
        return Path(home).expanduser() / "traind"
    except RuntimeError:
        raise NoHome("this user has no home folder: give --data-dir, or set TRAIND_DATA_DIR or HOME") from None


def read(data_dir: Path) -> ServiceInfo | None:
    """The content of `service.json` in `data_dir`; None if there is no such file, or it is not valid.

    Raises PermissionError if the file belongs to another user. The process may have ended even if the file exists.
    """
    try:
        document = json.loads((data_dir / FILE_NAME).read_text())
        return ServiceInfo(**document)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def write(info: ServiceInfo) -> Path:
    """Write `service.json`, mode 0600, in one step. Returns its path."""
    return write_private(Path(info.data_dir) / FILE_NAME, json.dumps(asdict(info), indent=1) + "\n")


def write_private(path: Path, text: str) -> Path:
    """Replace the file at `path` with `text`, mode 0600: a reader sees the old or the new text, never a part of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp's mode is 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove(data_dir: Path) -> None:
    """Remove `service.json`, if it is there."""
    (data_dir / FILE_NAME).unlink(missing_ok=True)
