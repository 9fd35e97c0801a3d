"""How an attempt ends: decided once, by whichever thread sees it first, and then written by the attempt.

Finish    the job reached a final state (also cancelled)
Crash     the attempt is lost, the job goes on by `jobs.lifecycle.crash`
Requeue   the attempt is given up without a crash; the job waits again, or is paused where that is asked for
Lost      another may have the attempt: nothing may be written
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from jobs.errors import Fenced
from jobs.states import State

log = structlog.get_logger(__name__)

ErrorDocument = dict[str, Any]
NOT_OF_A_FOLDER = {None, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBADF, errno.EPIPE}
"""What an OSError says if it is about descriptors, memory or a pipe."""


@dataclass(frozen=True)
class Finish:
    state: State
    summary: dict[str, Any]
    error: ErrorDocument | None = None
    result: dict[str, Any] | None = None
    """What a check found."""


@dataclass(frozen=True)
class Crash:
    error: ErrorDocument
    damaged_checkpoint: int | None = None
    """Id of the one it started from, where that was the cause."""


@dataclass(frozen=True)
class Requeue:
    reason: str


@dataclass(frozen=True)
class Lost:
    pass


Ending = Finish | Crash | Requeue | Lost


class Decided(Exception):
    """What a thread was about to do for the attempt has become pointless."""


class Verdict:
    """The ending of one attempt. `on_decision` is called once, by the thread that decides: it kills the trainer."""

    def __init__(self, on_decision: Callable[[], None]) -> None:
        self._on_decision = on_decision
        self._lock = threading.Lock()
        self._event = threading.Event()
        self.ending: Ending | None = None

    def decide(self, ending: Ending) -> None:
        """The first call counts."""
        with self._lock:
            if self.ending is not None:
                return
            self.ending = ending
        self._on_decision()
        self._event.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it is decided within the timeout."""
        return self._event.wait(timeout_seconds)

    def check(self) -> None:
        """Raises Decided where it is."""
        if self.ending is not None:
            raise Decided

    def pause(self, seconds: float) -> None:
        """Wait. Raises Decided as soon as it is."""
        if self._event.wait(seconds):
            raise Decided

    def guard(self, body: Callable[[], None]) -> None:
        """Run `body` of one of the attempt's threads: whatever it raises becomes the ending, if there is none yet.

        They write nowhere but to the scratch folder.
        """
        try:
            body()
        except Decided:
            pass
        except Fenced:
            self.decide(Lost())
        except Exception as error:
            log.exception("the worker failed in an attempt")
            self.decide(Crash(error_document(_code(error), f"{type(error).__name__}: {error}")))


def _code(error: Exception) -> str:
    """An error of the file system is one of the scratch folder: nothing else is written or read."""
    if not isinstance(error, OSError) or error.errno in NOT_OF_A_FOLDER:
        return "worker-error"
    return "scratch-full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "scratch-unusable"


def error_document(code: str, message: str, *, retryable: bool = True, **more: Any) -> ErrorDocument:
    """An error as the job's row holds it."""
    return {"code": code, "message": message, "retryable": retryable, **more}
