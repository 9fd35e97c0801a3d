"""Copies of the optimizers in a folder of their own, built or not, and Python that runs on them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

ROOT = Path(__file__).parents[2]
PYTEST = (
    *("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=.", "-o", "markers=slow\ntimeout", "-W", "error"),
    *("--disable-plugin-autoload", "--noconftest", "-p", "tests.optim_core.conftest"),
)
"""Options of a pytest in a process of its own, which loads only what the tests of this folder need."""


def copy_sources(folder: Path, *, library: bool) -> Path:
    """setup.py, the package and its tests, with the built library if there is one and it is asked for."""
    ignored = ["__pycache__", "build"] + ([] if library else ["_kernel*.so"])
    shutil.copytree(ROOT / "optim_core", folder / "optim_core", ignore=shutil.ignore_patterns(*ignored))
    shutil.copytree(
        ROOT / "tests" / "optim_core", folder / "tests" / "optim_core", ignore=shutil.ignore_patterns(*ignored)
    )
    (folder / "tests" / "__init__.py").touch()
    shutil.copy(ROOT / "setup.py", folder)
    return folder


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in the folder; TRAIND_KERNEL only as it is given here.

    Without `site`, because an editable install finds there what the copy lacks.
    """
    kept = {key: value for key, value in os.environ.items() if key not in {"TRAIND_KERNEL", "PYTHONPATH"}}
    env = kept | {"PYTHONPATH": os.pathsep.join([str(folder), get_path("purelib")])} | environment
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the library beside its package, as an editable install does."""
    return python(folder, "setup.py", "-q", "build_ext", "--inplace", **environment)


def libraries(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("optim_core/_kernel*.so")]
