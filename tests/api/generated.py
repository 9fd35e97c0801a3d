"""openapi-python-client, in an environment of its own: it needs an older typer than ours.

The environment is made once, below the one that runs the tests, and kept for later runs.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENT = "openapi-python-client==0.29.1"
INSTALL_SECONDS = 600


def programs() -> Path:
    """The folder with `python` and `openapi-python-client`; installed with pip if it is not there yet."""
    folder = Path(sys.prefix) / "openapi-client"
    installed = folder / "installed"
    with (Path(sys.prefix) / "openapi-client.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not installed.exists() or installed.read_text() != REQUIREMENT:
            venv.create(folder, clear=True, with_pip=True)
            pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", REQUIREMENT]
            subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
            installed.write_text(REQUIREMENT)
    return folder / "bin"


def generate(document: Path, package: Path) -> str:
    """Write the client package for the OpenAPI document; returns what the generator had to say."""
    command = [programs() / "openapi-python-client", "generate", "--path", document, "--output-path", package]
    done = subprocess.run([*command, "--meta", "none"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
