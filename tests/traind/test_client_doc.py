"""docs/client.md: its code runs from top to bottom against a service, and says the truth."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import pytest

from local.supervisor import Service
from traind.client import answers
from traind.client.answers import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_code_of_the_page_runs(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAIND_URL", service.url)
    monkeypatch.setenv("TRAIND_API_KEY", service.api_key)
    names: dict[str, Any] = {}
    printed = []
    for block in BLOCKS:
        if "import pandas" not in block or importlib.util.find_spec("pandas"):
            exec(compile(block, "docs/client.md", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert re.match(r"succeeded 0\.9\d+\n", printed[1])
    assert re.search(r"^train/loss 230 0\.\d+\nval/accuracy 5 0\.9\d+$", printed[2], re.MULTILINE)
    assert re.fullmatch(r"\['\d', '\d', '\d'\]\n", printed[4])
    judge_the_sweep(names)
    assert "invalid-spec 422" in printed[-3]
    assert "/optimizer/nesterov Nesterov momentum requires a momentum" in printed[-3]
    assert printed[-2] == "cancelled\n"


def judge_the_sweep(names: dict[str, Any]) -> None:
    """Twelve jobs in rows that any data frame takes: flat, with the same columns."""
    jobs, points = names["jobs"], names["points"]
    assert len(names["sweep"]) == len({job.id for job in names["sweep"]}) == len(jobs) == 12
    assert names["unfinished"] == []
    states = {(row["optimizer"], row["lr"]): row["state"] for row in jobs}
    assert states.pop(("sgd", 100.0)) == "diverged"
    assert set(states.values()) == {"succeeded"}
    assert {row["seed"] for row in jobs} == {0, 1}
    good = [row["accuracy"] for row in jobs if (row["optimizer"], row["lr"]) in (("sgd", 0.1), ("adam", 1e-2))]
    assert len(good) == 4
    assert min(good) > 0.5
    for rows in (jobs, points):
        assert len({tuple(row) for row in rows}) == 1
        assert {type(value) for row in rows for value in row.values()} <= {str, int, float, type(None)}
    columns = re.search(r"with the columns (.*?):\n", PAGE, re.DOTALL)
    assert columns
    assert re.findall(r"`(\w+)`", columns[1]) == list(points[0])
    assert {row["job_id"] for row in points} == {row["id"] for row in jobs}


def test_rows_have_the_numbers_that_json_cannot_hold() -> None:
    column = {name: [1.0, None] for name in ("first", "last", "min", "max", "mean")}
    buckets = {"step0": [1, 3], "step1": [2, 4], "count": [2, 2], "nan_count": [0, 1], **column}
    nonfinite = [["max", 1, "inf"], ["first", 1, "-inf"]]
    series = {"key": "train/loss", "count": 4, "buckets": buckets, "nonfinite": nonfinite}
    first, second = Metrics.model_validate({"job_id": "j", "series": [series]}).rows()
    assert first == {"job_id": "j", "key": "train/loss", "step0": 1, "step1": 2} | dict.fromkeys(column, 1.0) | {
        "count": 2,
        "nan_count": 0,
    }
    assert (second["max"], second["first"], second["step1"]) == (math.inf, -math.inf, 4)
    assert math.isnan(second["mean"])


def test_every_call_and_error_that_the_page_names_exists() -> None:
    from traind import client, errors

    for name in re.findall(r"client\.(\w+)\(", PAGE):
        assert hasattr(client.Client, name), name
    for name in re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE):
        assert hasattr(errors, name) or name in ("ValueError", "TimeoutError"), name
    codes = set(re.findall(r"^\| code `([\w-]+)`", PAGE, re.MULTILINE))
    source = "".join(path.read_text() for path in Path(answers.__file__).parent.glob("*.py"))
    assert codes
    assert all(f'"{code}"' in source for code in codes)
