"""When a trainer is asked for its last checkpoint before max_runtime_seconds."""

from __future__ import annotations

import pytest

from worker.judgement import ask_seconds


@pytest.mark.parametrize(("limit", "seconds_per_step", "asked"), [
    (1, 0.001, 0.5),
    (3, 0.001, 2.5),
    (60, 0.001, 54.0),
    (60, 10.0, 40.0),
    (60, 1_000.0, 30.0),
    (86_400, 0.1, 86_370.0),
    (86_400, 300.0, 85_800.0),
])  # fmt: skip
def test_it_leaves_time_for_two_steps_and_an_upload(limit: int, seconds_per_step: float, asked: float) -> None:
    assert ask_seconds(limit, seconds_per_step) == asked
