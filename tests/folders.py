"""Folders that others write in at the same time."""

from __future__ import annotations

import os
from pathlib import Path


def found(folder: Path, pattern: str) -> list[Path]:
    """What is under it and matches, as `Path.match` does. What is removed meanwhile is left out, where `Path.glob` of
    Python 3.11 and 3.12 raises FileNotFoundError.
    """
    paths = (Path(inside, name) for inside, folders, files in os.walk(folder) for name in (*folders, *files))
    return [path for path in paths if path.match(pattern)]
