"""examples/optimizers.py runs, and docs/optimizers.md says what it draws and what the constructors take."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import optim_core

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "optimizers.md").read_text()
IMAGES = set(re.findall(r"!\[[^]]+\]\(images/([^)]+)\)", PAGE))
MAX_BYTES = 150_000


def draw(out: Path) -> dict[str, bytes]:
    """What `python examples/optimizers.py --quick` writes; any warning of it is an error."""
    command = [sys.executable, "-W", "error", "examples/optimizers.py", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "learning rates of Adam" in done.stderr
    assert not done.stdout
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_optimizer_example_draws_the_images_of_the_page_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    files = draw(tmp_path / "new" / "folder")
    assert files.keys() == IMAGES
    for content in files.values():
        assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    assert draw(tmp_path / "again") == files


def test_the_images_of_the_page_are_there_and_small_and_no_others() -> None:
    files = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert files.keys() == IMAGES
    assert len(files) == 6
    assert max(files.values()) < MAX_BYTES


def documented(optimizer: str) -> dict[str, str]:
    """Argument and default, as text, in the page's table that has a column of this optimizer."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
        if head[0] == "argument" and f"`{optimizer}`" in head:
            column = head.index(f"`{optimizer}`")
            return {row[0].strip("`"): row[column].strip("`") for row in rows if row[column] != "absent"}
    raise AssertionError(f"no table of {optimizer}'s arguments")


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_the_pages_arguments_and_defaults_are_the_constructors(optimizer: str) -> None:
    parameters = inspect.signature(getattr(optim_core, optimizer)).parameters
    table = documented(optimizer)
    assert table.keys() == parameters.keys()
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert table[name] == "required"
        else:
            assert repr(ast.literal_eval(table[name])) == repr(parameter.default), name
