"""The attempts of a job in trainer processes, as a worker makes them; a test kills them where it wants.

The test stands in the worker's place at the trainer's pipe. A checkpoint is complete once the test has its message,
which takes the place of the upload. Points and checkpoints of all attempts make one line of history.
"""

from __future__ import annotations

import math
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.training.scenario import Heard, files, trainer_job
from worker.clock import boottime
from worker.trainer import Trainer
from worker.training.messages import Checkpoint, Finished, Message, Ready, TrainerJob, decode
from worker.training.tensor_file import read_tensors

PATIENT = 60.0
TRIES = 50

Wanted = Callable[[Message], bool]
Points = dict[str, dict[int, bytes]]
"""{key: {step: the value's eight bytes}}."""


class Attempt(Heard):
    """A trainer process from its start to its end: its own one, or SIGKILL on the first message that `kill_on` wants.

    `messages` has all that it sent, `n_before` counts those up to the kill.
    """

    def __init__(self, job: TrainerJob, *, kill_on: Wanted | None = None) -> None:
        super().__init__()
        self.n_before: int | None = None
        trainer = Trainer(boottime() + 2 * PATIENT)
        try:
            link = trainer.start(job.model_dump_json(), job.scratch_dir / "trainer.log")
            for message in received(link):
                self.messages.append(message)
                if kill_on is not None and self.n_before is None and kill_on(message):
                    trainer.kill()
                    self.n_before = len(self.messages)
            self.exit = trainer.wait(PATIENT)
        finally:
            trainer.close()

    @property
    def from_step(self) -> int:
        (ready,) = self.all(Ready)
        return ready.step

    @property
    def is_cut(self) -> bool:
        """Whether the kill came before its end, and as a kill."""
        assert self.exit is not None, "a trainer outlives the end of its pipe"
        return self.exit.signal is signal.SIGKILL and not isinstance(self.end, Finished)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Those that were there before the kill."""
        return [message for message in self.messages[: self.n_before] if isinstance(message, Checkpoint)]


def received(link: Connection) -> Iterator[Message]:
    """Its messages until it is gone; one that was torn by its end is none."""
    while True:
        assert link.poll(PATIENT), "the trainer is silent"
        try:
            data = link.recv_bytes()
        except (EOFError, OSError):
            return
        yield decode(data)


class Job:
    """A job whose attempts are cut, one after the other, until one goes to the end."""

    def __init__(self, folder: Path, parts: dict[str, Any]) -> None:
        self._folder = folder
        self._parts = parts
        self._n_tries = 0
        self._complete: Checkpoint | None = None
        self.attempts: list[Attempt] = []

    def kill(self, kill_on: Wanted, *, landed: Callable[[Attempt], bool] = lambda _: True, torn: bool = False) -> None:
        """An attempt that is killed. One that outran the kill, or where it has not `landed`, is made again.

        `torn`: the last checkpoint before the kill had not become complete.
        """
        for _ in range(TRIES):
            attempt = self._attempt(kill_on)
            if attempt.is_cut and landed(attempt):
                break
        else:
            raise AssertionError(f"in {TRIES} tries no kill landed where it was to; the last ends {attempt.end}")
        self.attempts.append(attempt)
        complete = attempt.checkpoints[:-1] if torn else attempt.checkpoints
        if complete:
            self._complete = complete[-1]

    def finish(self) -> Attempt:
        """The attempt that goes to the end."""
        self.attempts.append(self._attempt(None))
        return self.attempts[-1]

    def _attempt(self, kill_on: Wanted | None) -> Attempt:
        self._n_tries += 1
        folder, saved = self._folder / str(self._n_tries), self._complete
        attempt = Attempt(trainer_job(folder, saved and files(saved), **self._parts), kill_on=kill_on)
        (ready,) = attempt.all(Ready)
        assert (ready.step, ready.differences) == (saved.step if saved else 0, [])
        return attempt


@dataclass(frozen=True)
class Result:
    """What a job leaves, to the bit, but for times and rates."""

    finished: Finished
    summary: dict[str, Any]
    tensors: dict[str, tuple[Any, ...]]
    """Of both files: {name: (dtype, shape, bytes)}."""
    documents: tuple[dict[str, Any], ...]
    points: Points


def result(attempts: list[Attempt]) -> Result:
    finished = attempts[-1].finished
    final = attempts[-1].checkpoint(finished.step)
    assert final.kind == "final"
    model, state = (read_tensors(Path(path)) for path in (final.model_path, final.state_path))
    tensors = {
        f"{part}/{name}": (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
        for part, (tensors, _) in (("model", model), ("state", state))
        for name, tensor in tensors.items()
    }
    return Result(finished, final.summary, tensors, (model[1], state[1]), line_of_history(attempts))


def line_of_history(attempts: list[Attempt]) -> Points:
    """The points that count: of each attempt those up to the step that every later one went on from."""
    line: Points = {}
    for number, attempt in enumerate(attempts, 1):
        cut = min((later.from_step for later in attempts[number:]), default=math.inf)
        for key in attempt.metric_keys():
            seen = {step: struct.pack("<d", value) for step, value in attempt.points(key).items() if step <= cut}
            column = line.setdefault(key, {})
            assert not column.keys() & seen.keys(), f"{key} is doubled"
            column |= seen
    return line
