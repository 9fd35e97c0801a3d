"""An environment with one wheel and, by links, what it asks for: pip takes minutes to copy the same files again."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def bare_environment(folder: Path, wheel: Path, *, extra: str) -> Path:
    """Make it in `folder`; returns its Python.

    Of this interpreter's distributions it has those that the wheel's own metadata asks for, with `extra`, and those
    that they ask for, so a missing requirement is seen.
    """
    venv.create(folder)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    (installed,) = distributions(path=[str(site)])
    for needed in _needed(installed, extra):
        for source in _top_level(needed):
            link = site / source.name
            if not link.is_symlink():
                link.symlink_to(source)
    return python


def _needed(root: Distribution, extra: str) -> Iterable[Distribution]:
    waiting, known = [(root, frozenset({extra}))], set[tuple[str, frozenset[str]]]()
    while waiting:
        one, extras = waiting.pop()
        for requirement in map(Requirement, one.requires or ()):
            marker, name = requirement.marker, canonicalize_name(requirement.name)
            if marker and not any(marker.evaluate({"extra": each}) for each in extras or {""}):
                continue
            key = name, frozenset(requirement.extras)
            if name != canonicalize_name(root.name) and key not in known:
                found = distribution(name)
                assert requirement.specifier.contains(found.version, prereleases=True), f"{one.name}: {requirement}"
                known.add(key)
                waiting.append((found, key[1]))
                yield found
            elif key not in known:
                known.add(key)
                waiting.append((root, key[1]))


def _top_level(found: Distribution) -> set[Path]:
    """Packages, modules and metadata of a distribution, where they are."""
    names = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
    return {Path(str(found.locate_file(name))) for name in names}
