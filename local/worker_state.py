"""What the worker of a local service says of itself on a pipe (worker/parent.py): that it is ready, ill, well again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable

CLOSE_SECONDS = 5.0


class WorkerState:
    """The pipe's two ends. `told_fd` is for the worker, also for one that is started again. Close it after them."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._trouble: str | None = None
        self._said = threading.Event()
        heard, self.told_fd = os.pipe()
        self._thread = threading.Thread(target=self._listen, args=[heard], name="worker-state", daemon=True)
        self._thread.start()

    def ready(self) -> bool:
        """Whether the worker has said that it takes jobs, or that it is ill."""
        return self._said.is_set()

    def close(self) -> None:
        os.close(self.told_fd)
        self._thread.join(CLOSE_SECONDS)

    def _listen(self, heard: int) -> None:
        with open(heard, encoding="utf-8") as lines:
            for line in lines:
                self._hear(json.loads(line)["trouble"])

    def _hear(self, trouble: str | None) -> None:
        if trouble is not None:
            self._report(f"the worker is ill and takes no job: {trouble}")
        elif self._trouble is not None:
            self._report("the worker is well again and takes jobs")
        self._trouble = trouble
        self._said.set()
