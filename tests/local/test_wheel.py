"""The wheel, installed outside the clone: nothing is missing from it, and a service runs from it alone."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.local.environments import bare_environment
from tests.local.up import Up, traind

ROOT = Path(__file__).parents[2]
NOT_SOURCE = shutil.ignore_patterns(".*", "tests", "build", "dist", "*.egg-info", "__pycache__", "node_modules", "*.so")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the source, because a build writes beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "source"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> str:
    """Outside the clone, with the wheel and what it asks for: a missing requirement is seen."""
    return str(bare_environment(wheel.parent / "environment", wheel, extra="local"))


def test_everything_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "worker/training/datasets/digits.csv.gz",
        "worker/training/datasets/README.md",
        "migrations/alembic.ini",
        "migrations/script.py.mako",
        "local/guard.py",
    ):
        assert wanted in names
    assert [name for name in names if name.startswith("migrations/versions/0001")]
    rooms = {"traind", "api", "jobs", "worker", "optim_core", "local", "migrations"}
    version = importlib.metadata.version("traind")
    assert {name.split("/")[0] for name in names} == rooms | {f"traind-{version}.dist-info"}


def test_the_native_kernel_is_in_it_and_fits_its_sources(python: str) -> None:
    code = "import optim_core; print(optim_core.backend())"
    done = subprocess.run([python, "-P", "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("native ("), done.stderr


def test_a_service_and_a_job_run_from_it_alone(python: str, data_dir: Path, tmp_path: Path) -> None:
    rooms = "api, jobs, local, migrations, optim_core, traind, worker"
    code = f"import {rooms}; print(*(room.__file__ for room in ({rooms})), sep='\\n')"
    imported = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(Path(file).is_relative_to(Path(python).parents[1]) for file in imported.splitlines())
    with closing(Up(data_dir, python=python)):
        here = ("--data-dir", str(data_dir))
        job = traind(
            "submit",
            "--dataset",
            "digits",
            "--model",
            "linear",
            "--optimizer",
            "adam",
            "--epochs",
            "1",
            *here,
            python=python,
        )
        assert job.returncode == 0, job.stderr
        watched = traind("watch", job.stdout.strip(), *here, python=python)
        assert watched.returncode == 0, watched.stderr
        weights = tmp_path / "model.safetensors"
        taken = traind("download", job.stdout.strip(), "-o", str(weights), *here, python=python)
        assert taken.returncode == 0, taken.stderr
        code = f"import traind; print(traind.load_model({str(weights)!r}).classes[7])"
        loaded = subprocess.run([python, "-P", "-W", "error", "-c", code], capture_output=True, text=True, check=False)
        assert loaded.stdout == "7\n", loaded.stderr
        assert traind("down", *here, python=python).returncode == 0
