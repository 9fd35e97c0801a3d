"""docs/failures.md names every code that a job's error or the client's can have, and no other; and each fault on it
is seen by a test.
"""

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
    *("cancel-requested", "checkpoint-damaged", "checkpoint-deleted"),  # kinds of events
    *("checkpoint-skipped", "checkpoint-waits"),
    *("pause-requested", "pause-withdrawn"),
    *("death-pipe", "sign-of-life", "start-trainer", "traind-worker", "warm-up"),  # threads and other names
    *("fashion-mnist",),
}
"""Strings of worker and jobs.lifecycle that look like codes and are none."""
WITHOUT_HYPHEN = {"diverged"}
OF_THE_API = {"invalid-parameter", "not-found"}

WORKER = "tests/worker/"
SEEN_BY = {
    "The trainer is killed": f"{WORKER}test_machine_faults.py::test_the_kernel_kills_the_trainer_and_nothing_else",
    "The trainer segfaults": f"{WORKER}test_crash.py::test_the_last_output_is_kept",
    "torch is refused": f"{WORKER}test_machine_faults.py::test_memory_that_is_refused_is_not_asked_for_again",
    "The trainer hangs": f"{WORKER}test_crash.py::test_a_silent_trainer_is_killed",
    "The scratch disk is": f"{WORKER}test_machine_faults.py::test_a_disk_that_fills_while_a_checkpoint_is_written",
    "The worker cannot start": "tests/local/test_up.py::test_a_worker_that_cannot_start_is_told_instead_of_the_url",
    "The process's user": "tests/local/test_unknown_user.py::test_api_worker_and_command_line_work",
    "The scratch folder is swept": f"{WORKER}test_ill_machine.py::"
    "test_a_scratch_folder_that_is_swept_away_costs_no_attempt",
    "The scratch folder is read-only": f"{WORKER}test_ill_machine.py::"
    "test_an_ill_worker_takes_no_job_and_says_so_until_it_is_mended",
    "The scratch disk changes": f"{WORKER}test_damage.py::"
    "test_where_only_this_machine_s_copy_changed_the_checkpoint_keeps_its_place",
    "The data cannot": f"{WORKER}test_machine_faults.py::test_each_way_of_not_being_there_has_its_code",
    "A download": f"{WORKER}test_machine_faults.py::test_a_slow_download_is_a_sign_of_life_and_a_silent_one_is_none",
    "A stored checkpoint": f"{WORKER}test_damage.py::test_a_flipped_bit_and_a_lost_chunk_lead_to_the_ones_before",
    "Another kind of machine": f"{WORKER}test_damage.py::test_a_resume_by_another_kernel_is_not_exact_and_says_why",
    "The worker is killed": f"{WORKER}test_lost_worker.py::test_killed",
    "The worker is stopped (": f"{WORKER}test_lost_worker.py::test_frozen_for_less_than_its_lease",
    "The worker alone": f"{WORKER}test_outage.py::test_one_worker_loses_its_way_to_postgres",
    "The worker is stopped beyond": f"{WORKER}test_lost_worker.py::test_frozen_beyond_its_lease",
    "The worker's own slot": f"{WORKER}test_watchdog.py::test_a_worker_whose_slot_hangs_ends",
    "The worker is told": f"{WORKER}test_drain.py::test_the_job_goes_on_from_the_step_it_was_at",
    "A worker's clock": f"{WORKER}test_clock.py::test_it_trains_keeps_leases_reaps_and_is_told",
    "The last worker": f"{WORKER}test_lost_worker.py::test_the_last_worker_is_gone",
    "Postgres is restarted": f"{WORKER}test_outage.py::test_postgres_is_restarted_twice",
    "Postgres is away": f"{WORKER}test_outage.py::test_postgres_is_away_for_longer_than_a_lease",
    "The database's disk has": f"{WORKER}test_storage.py::test_no_checkpoint_is_taken_in_and_the_training_goes_on",
    "Something fills": "tests/local/test_full_disk.py::test_a_job_does_not_fill_it_and_what_does_can_be_mended",
    "Postgres hangs": "tests/api/test_hanging_database.py::test_a_locked_table_and_a_frozen_server",
    "Postgres only reads": f"{WORKER}test_outage.py::test_postgres_only_reads_for_a_while",
    "Postgres has no": f"{WORKER}test_outage.py::test_postgres_has_no_connection_left",
    "The database is of": "tests/api/test_codes.py::test_a_database_that_is_not_migrated_is_not_ready",
    "Redis is": f"{WORKER}test_redis_faults.py::test_it_is_killed_and_comes_back_empty",
    "The api is": "tests/local/test_up.py::test_up_is_found_kept_running_and_ended_by_down",
    "`traind up`": "tests/local/test_up.py::test_up_after_a_stop_and_after_every_kind_of_kill_just_works",
}
"""The beginning of a fault's row, and the test (one of them) that meets it."""


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
    """The cells of the table under the heading, without its own."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def functions(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_fault_is_met_by_a_test() -> None:
    faults = [row[0] for section in ("Faults of the machine", "Faults of the servers") for row in rows(section)]
    assert [fault for fault in faults if not fault.startswith(tuple(SEEN_BY))] == []
    assert [begin for begin in SEEN_BY if not any(fault.startswith(begin) for fault in faults)] == []
    assert len(faults) == len(SEEN_BY)
    assert [test for test in SEEN_BY.values() if test.split("::")[1] not in functions(test.split("::")[0])] == []


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
    events = {"checkpoint-damaged", "checkpoint-skipped", "checkpoint-waits"}
    known = codes_of_jobs() | codes_of_the_client() | events | {"database-unavailable", "not-ready"}
    assert {code for code in re.findall(r"`([a-z-]+)`", text) if KEBAB.fullmatch(code)} <= known
