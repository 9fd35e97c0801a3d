"""What importing a room loads, and what its files may import: what import-linter can't see."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"traind", "api", "jobs", "worker", "optim_core", "local", "migrations"}
HEAVY = {"torch", "sqlalchemy", "celery", "fastapi", "psycopg", "numpy", "alembic"}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules and the modules of ours that a fresh interpreter has after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    return {name.partition(".")[0] for name in modules} | {m for m in modules if m.partition(".")[0] in OURS}


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import traind", HEAVY | OURS - {"traind"}),
        ("from traind import load_model", HEAVY | OURS - {"traind"}),
        ("import traind.service", HEAVY | {"pydantic"} | OURS - {"traind"}),
        ("import traind.client", HEAVY | OURS - {"traind"}),
        ("import traind.cli", HEAVY | {"httpx2"} | OURS - {"traind"}),
        ("import local.commands", HEAVY | OURS - {"local"}),
        ("import jobs", HEAVY | OURS - {"jobs"}),
        ("import jobs.catalog", HEAVY - {"numpy"} | OURS - {"jobs", "traind"}),
        ("import api.app", {"torch", "worker", "optim_core", "local"}),
        ("import local.supervisor", {"torch", "fastapi", "celery", "api", "worker", "optim_core"}),
        ("import worker.training.__main__", {"sqlalchemy", "celery", "psycopg", "fastapi", "redis", "api", "local"}),
        ("import optim_core", {"sqlalchemy", "pydantic"} | OURS - {"optim_core"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_importing_loads_no_more_than_it_needs(statement: str, unwanted: set[str]) -> None:
    assert not loaded_by(statement) & unwanted


def imports_of(folder: str) -> Iterator[tuple[str, str]]:
    """Every import in the files under `folder`: file, imported module."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((str(path.relative_to(ROOT)), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"relative import in {path}"
                yield from ((str(path.relative_to(ROOT)), f"{node.module}.{alias.name}") for alias in node.names)


def test_training_imports_only_what_a_bare_gpu_box_has() -> None:
    allowed = (
        "worker.training",
        "optim_core",
        "traind.spec",
        "traind.architecture",
        "traind.errors",
        "traind.InvalidSpec",
        "jobs.catalog",
    )
    ours = {(path, name) for path, name in imports_of("worker/training") if name.partition(".")[0] in OURS}
    assert ours
    assert {(path, name) for path, name in ours if not name.startswith(allowed)} == set()


def test_the_optimizers_import_torch_and_the_standard_library() -> None:
    allowed = {"torch", "optim_core", "__future__"} | sys.stdlib_module_names
    for_gpus = {("optim_core/gpu.py", "triton"), ("optim_core/gpu_kernels.py", "triton")}
    found = {(path, name.partition(".")[0]) for path, name in imports_of("optim_core")}
    assert {one for one in found if one[1] not in allowed} == for_gpus


def test_every_room_is_in_the_contracts() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert rooms == OURS
