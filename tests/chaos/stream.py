"""The stream of jobs: two for each worker, submitted over HTTP by the client, for as long as it is asked to."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from itertools import count, cycle

from tests.chaos.installation import WORKERS
from tests.chaos.specs import LONG, SPECS
from traind.client import Client, Job
from traind.errors import ApiError

IN_FLIGHT = 2 * len(WORKERS)
LOOK_SECONDS = 0.25
REPEATED_SHARE = 0.2


@dataclass
class Submitted:
    """A job as the client saw it last."""

    key: str
    spec: str
    job: Job


class Stream:
    """A thread from entering the context to leaving it. A call that fails for a moment is made again, same key."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        self._client, self._chance = client, chance
        self._specs = cycle([LONG, *self._chance.sample(sorted(SPECS.keys() - {LONG}), len(SPECS) - 1)])
        self._numbers = count(1)
        self._waiting: tuple[str, str] | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self.submitting = True
        self.submitted: list[Submitted] = []
        self.violations: list[str] = []

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()

    @property
    def unfinished(self) -> list[Submitted]:
        return [each for each in list(self.submitted) if not each.job.final]

    def finish(self, timeout_seconds: float) -> None:
        """Submit no more, and wait for all jobs to end."""
        self.submitting = False
        deadline = time.monotonic() + timeout_seconds
        while self._thread.is_alive() and (self.unfinished or self._waiting) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def _run(self) -> None:
        while not self._leaving.wait(LOOK_SECONDS):
            try:
                self._turn()
            except ApiError as error:
                if not error.retryable:
                    self.violations.append(f"the service refused a call: {error.code}: {error}")

    def _turn(self) -> None:
        for each in self.unfinished:
            each.job = self._client.get(each.job.id)
        while self._waiting or (self.submitting and len(self.unfinished) < IN_FLIGHT):
            self._waiting = self._waiting or (f"chaos-{next(self._numbers)}", next(self._specs))
            key, spec = self._waiting
            document = SPECS[spec] | {"name": spec}
            job = self._client.submit(document, idempotency_key=key)
            self._waiting = None
            self.submitted.append(Submitted(key, spec, job))
            if self._chance.random() < REPEATED_SHARE:
                again = self._client.submit(document, idempotency_key=key)
                if again.id != job.id:
                    self.violations.append(f"doubled: key {key} made the jobs {job.id} and {again.id}")
