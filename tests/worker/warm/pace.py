"""Imported by a process that starts trainers, it lets every step of a job, and of a check of one, take longer.

A job lasts as long as a test needs it, and computes little meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from worker.training import loop, replay

STEP_SECONDS = 0.002
"""That long a trainer sleeps after each step."""
_steps = loop.steps


def _paced(*arguments: Any) -> Iterator[bool]:
    for last in _steps(*arguments):
        time.sleep(STEP_SECONDS)
        yield last


loop.steps = replay.steps = _paced  # type: ignore[attr-defined]
