"""docs/failures.md names every code that a job's error or the client's can have, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from traind.errors import TraindError
from worker.training import errors

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "failures.md").read_text()
KEBAB = re.compile(r"[a-z]+(-[a-z]+)+")
NO_CODES = {
    *("cancel-requested", "checkpoint-damaged", "pause-requested", "pause-withdrawn"),  # kinds of events
    *("death-pipe", "sign-of-life", "start-trainer", "traind-worker", "warm-up"),  # threads and other names
    *("fashion-mnist",),
}
"""Strings of worker and jobs.lifecycle that look like codes and are none."""
WITHOUT_HYPHEN = {"diverged"}
OF_THE_API = {"not-found"}


def trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            yield ast.parse(path.read_text())


def strings(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def codes_of_jobs() -> set[str]:
    """Every string of the code that looks like one: what is none must be told to this test."""
    found = {text for tree in trees("worker", "jobs/lifecycle") for text in strings(tree) if KEBAB.fullmatch(text)}
    assert found >= NO_CODES, "take these out of NO_CODES"
    return found - NO_CODES | WITHOUT_HYPHEN


def codes_of_the_client() -> set[str]:
    """The first arguments of ApiError, by themselves or by a constant's name."""
    found: set[str] = set()
    for tree in trees("traind/client"):
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
                first = constants.get(node.args[0].id) if isinstance(node.args[0], ast.Name) else node.args[0]
                found |= {first.value} if isinstance(first, ast.Constant) else set()
    return found - OF_THE_API


def rows(section: str) -> list[list[str]]:
    """The cells of the table under the heading, its codes first."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    ("section", "codes"),
    [("Codes of a job's error", codes_of_jobs()), ("Codes of a call", codes_of_the_client())],
)
def test_every_code_is_on_the_page_and_the_other_way_round(section: str, codes: set[str]) -> None:
    named = [row[0].strip("`") for row in rows(section)]
    assert sorted(named) == sorted(codes)
    assert len(codes) > 5
    assert all(row[-1] for row in rows(section))


def kinds(root: type[TraindError]) -> Iterator[type[TraindError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def test_what_is_retried_is_so_in_the_code() -> None:
    said = {row[0].strip("`"): row[1].partition(",")[0] for row in rows("Codes of a job's error")}
    said["checkpoint-corrupt"] = {"yes": "no"}[
        said["checkpoint-corrupt"]
    ]  # the worker's decision: a check is not retried
    retryable: dict[str, set[bool]] = {}
    for kind in kinds(errors.TrainingError):
        retryable.setdefault(kind.code, set()).add(kind.retryable)
    for code, values in retryable.items():
        assert {"yes": {True}, "no": {False}}.get(said[code], {True, False}) == values, code


def test_codes_in_its_text_are_codes() -> None:
    text = PAGE.partition("## Codes of a job's error")[0]
    known = codes_of_jobs() | codes_of_the_client() | {"checkpoint-damaged", "database-unavailable", "not-ready"}
    assert {code for code in re.findall(r"`([a-z-]+)`", text) if KEBAB.fullmatch(code)} <= known
