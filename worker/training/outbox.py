"""What leaves a trainer while it trains: metric batches and signs of life, at most four times a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from time import perf_counter

from traind.spec import Resolved
from worker.training.messages import Message, PhaseName, Progress
from worker.training.metrics import Recorder

INTERVAL_SECONDS = 0.25
MAX_POINTS = 2_000
RATE_REPORTS = 20

Emit = Callable[[Message], None]


def serialised(emit: Emit) -> Emit:
    """`emit` for several threads: one message at a time."""
    lock = Lock()

    def one_at_a_time(message: Message) -> None:
        with lock:
            emit(message)

    return one_at_a_time


class Outbox:
    """Sends the recorder's points and the position. The first beat sends at once: that is the first metric."""

    def __init__(self, emit: Emit, recorder: Recorder, resolved: Resolved) -> None:
        self.emit = emit
        self._recorder = recorder
        self._total_steps = resolved.total_steps
        self._due = 0.0
        self._evaluated = 0
        self._history: deque[tuple[float, int]] = deque(maxlen=RATE_REPORTS)

    def beat(self, step: int, phase: PhaseName = "train") -> None:
        """Call after every step; sends what is due."""
        if perf_counter() < self._due and self._recorder.n_points < MAX_POINTS:
            return
        self.flush()
        now = perf_counter()
        if now >= self._due:
            self._due = now + INTERVAL_SECONDS
            self._progress(now, step, phase)

    def evaluation_beat(self, step: int) -> None:
        """Call after every evaluation batch."""
        self._evaluated += 1
        self.beat(step, "evaluate")

    def flush(self) -> None:
        """Send all points now: before a checkpoint, and before the end."""
        metrics = self._recorder.take()
        if metrics is not None:
            self.emit(metrics)

    def _progress(self, now: float, step: int, phase: PhaseName) -> None:
        then, step_then = self._history[0] if self._history else (now, step)
        self._history.append((now, step))
        rate = (step - step_then) / (now - then) if now > then else None
        left = self._total_steps - step
        self.emit(
            Progress(
                step=step,
                phase=phase,
                rate=rate,
                eta_seconds=left / rate if rate else None,
                evaluated=self._evaluated,
            )
        )
