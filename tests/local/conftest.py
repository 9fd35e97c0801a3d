"""Data folders for the tests, directly under the system's temporary folder: pytest's own is closed to other users."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from local.process import Family
from local.servers import Servers
from tests.traind.commands import here  # noqa: F401  a fixture


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="traind-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def family() -> Iterator[Family]:
    with closing(Family()) as family:
        yield family


@pytest.fixture
def servers_in(data_dir: Path, family: Family) -> Callable[[], Servers]:
    """Makes embedded servers over the test's data folder; without fsync, because a kill loses nothing by that."""
    return lambda: Servers(data_dir, family, redis_source="wheel", durable=False, report=print)
