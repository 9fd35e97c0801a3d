"""Exact resume, proved on real processes: a trainer is killed with SIGKILL and another one goes on from its last
complete checkpoint. Weights, optimizer state and all metrics are then those of a run that was never cut, to the bit.

By default a pairwise cover of all cases is run; `--resume-cases` takes "all" (`make test-all`), or how many of all.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from tests.training.attempts import Attempt, Job, Result, result
from tests.training.cuts import AXES, CASES, PAIRS, SCHEDULES, Case, Cut, edge, interrupted, parts_of, saving
from traind.spec import Schedule
from worker.training.messages import Message, Progress

pytestmark = pytest.mark.usefixtures("fork_server")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = chosen(metafunc.config.getoption("resume_cases"))
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def chosen(which: str) -> list[Case]:
    if which in ("pairs", "all"):
        return PAIRS if which == "pairs" else CASES
    return [CASES[index] for index in sorted(Random(0).sample(range(len(CASES)), int(which)))]


@lru_cache(maxsize=2)
def uninterrupted(parts: str) -> Result:
    """The result of a run that takes no checkpoint on its way; the cases that differ only in the cut share it."""
    with tempfile.TemporaryDirectory() as folder:
        return result([Job(Path(folder), json.loads(parts)).finish()])


def test_cut_and_resumed_equals_uninterrupted_to_the_bit(case: Case, tmp_path: Path) -> None:
    parts = parts_of(case)
    whole = uninterrupted(json.dumps(parts))
    attempts = interrupted(case, tmp_path)
    assert_resumed_where_it_should(case, attempts)
    assert_ended_early(whole, case.stopping == "early", parts["training"]["steps"])
    assert_equal(result(attempts), whole)


def assert_resumed_where_it_should(case: Case, attempts: list[Attempt]) -> None:
    *_, cut, last = attempts
    assert cut.is_cut
    assert last.from_step < last.finished.step
    match case.cut:
        case Cut.RANDOM:
            assert last.from_step == cut.checkpoints[-1].step
        case Cut.UPLOAD:
            assert last.from_step == sum(saved.step for saved in cut.checkpoints[-2:-1])
        case Cut.EVALUATION:
            assert last.from_step + 1 == cut.end.step
        case _:
            assert last.from_step == edge(case)


def assert_ended_early(whole: Result, early: bool, steps: int) -> None:
    assert whole.finished.state == "succeeded"
    assert whole.finished.summary.get("stopped_early", False) is early
    assert (whole.finished.step < steps) is early


def assert_equal(resumed: Result, whole: Result) -> None:
    assert resumed.finished == whole.finished
    assert resumed.summary == whole.summary
    assert resumed.tensors.keys() == whole.tensors.keys()
    assert [name for name, tensor in whole.tensors.items() if resumed.tensors[name] != tensor] == []
    assert resumed.documents == whole.documents
    assert resumed.points.keys() == whole.points.keys()
    for key, points in whole.points.items():
        assert resumed.points[key] == points, key


def is_cut_between_two_batches(attempt: Attempt) -> bool:
    """In an evaluation; the checkpoint of the step before, which a thread writes meanwhile, has been sent already."""
    end = attempt.end
    return isinstance(end, Progress) and [saved.step for saved in attempt.checkpoints[-1:]] == [end.step - 1]


def test_cut_between_two_batches_of_an_evaluation(tmp_path: Path) -> None:
    """The sign of life comes from within the evaluation, which here has 20 batches after every step."""
    training = {"steps": 100, "eval_every": 1}
    parts = {"dataset": {"name": "synthetic_classification", "n_samples": 100_000}, "training": training}

    def evaluates(message: Message) -> bool:
        return isinstance(message, Progress) and message.phase == "evaluate" and message.evaluated % 20 != 0

    job = Job(tmp_path, saving(parts, every=1))
    job.kill(evaluates, landed=is_cut_between_two_batches)
    job.finish()
    assert job.attempts[-1].from_step == job.attempts[0].end.step - 1
    assert_equal(result(job.attempts), uninterrupted(json.dumps(parts)))


def test_every_pair_of_two_axes_is_covered() -> None:
    for (i, one), (j, other) in itertools.combinations(enumerate(AXES), 2):
        assert {(case[i], case[j]) for case in PAIRS} == set(itertools.product(one, other))


def test_every_schedule_of_the_spec_is_there() -> None:
    union, _ = get_args(Schedule)
    assert {get_args(part.model_fields["name"].annotation)[0] for part in get_args(union)} == set(SCHEDULES)
