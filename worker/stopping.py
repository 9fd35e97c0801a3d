"""How a worker process is told to stop: the first SIGTERM or SIGINT asks; after it SIGINT, and always SIGQUIT, ends it.

The handlers do nothing: the interpreter writes each signal's number into a pipe, and a thread acts on it, so no
lock is taken inside a handler and a main thread that hangs hinders nothing. Ending at once is safe at any time: the
trainer dies with its worker, and another worker finds the job.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import structlog

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

log = structlog.get_logger(__name__)


def on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` once, in a thread, when the process is asked to stop. To be called in the main thread."""
    heard, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    for number in HANDLED:
        signal.signal(number, _do_nothing)
    threading.Thread(target=_obey, args=(heard, stop), name="signals", daemon=True).start()


def _do_nothing(*_: object) -> None:
    pass


def _obey(heard: int, stop: Callable[[], None]) -> None:
    stopping = False
    while True:
        for number in os.read(heard, 64):
            if number == signal.SIGQUIT or (stopping and number == signal.SIGINT):
                os._exit(128 + number)
            if number in HANDLED and not stopping:
                stopping = True
                log.info("stopping; Ctrl-C ends at once", signal=signal.Signals(number).name)
                threading.Thread(target=stop, name="stop").start()
