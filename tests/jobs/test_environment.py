"""Variables that nothing reads are told by name, with the one that may be meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.environment import KNOWN, unread_variables

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TRAIND_REDIS_ULR", "TRAIND_REDIS_URL"),
        ("TRAIND_REDISURL", "TRAIND_REDIS_URL"),
        ("traind_databse_url", "TRAIND_DATABASE_URL"),
        ("TRAIND_SCRATCH_DIRECTORY", "TRAIND_SCRATCH_DIR"),
        ("TRAIND_WORKER_QUEUE", "TRAIND_WORKER_QUEUES"),
        ("TRAIND_APIKEY", "TRAIND_API_KEY"),
    ],
)
def test_a_misspelt_name_is_told_with_the_right_one(name: str, meant: str) -> None:
    (line,) = unread_variables({name: "hunter2", "PATH": "/bin"})
    assert line.startswith(f"{name.upper()} is set, but ")
    assert line.endswith(f"; did you mean {meant}?")
    assert "hunter2" not in line


def test_a_name_like_no_other_leads_to_the_list() -> None:
    (line,) = unread_variables({"TRAIND_X": "1"})
    assert line.endswith("docs/configuration.md lists what there is")
    (line,) = unread_variables({f"TRAIND_{'X' * 5_000}": "1"})
    assert len(line) < 200


def test_names_that_something_reads_or_kubernetes_makes_are_not_told() -> None:
    made = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_80_TCP", "PORT_80_TCP_ADDR", "API_SERVICE_HOST")
    read = set(re.findall(r"`(TRAIND_[A-Z_]+)`", PAGE.read_text()))
    assert read == set(KNOWN)
    assert unread_variables(dict.fromkeys([*read, "traind_redis_url", *(f"TRAIND_{name}" for name in made)], "1")) == []
