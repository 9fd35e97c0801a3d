"""What runs in the trainer process around `worker.training`: its session, its output, its deadline, its pipes.

`main` is the entry of a trainer; `look_around` of the throw-away child that warms the fork server up. Neither knows
a database. The worker sends `RunUntil` and `Stop`; everything the training emits goes back on the same pipe.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from worker.deadline import Deadline
from worker.death_pipe import die_with_writer
from worker.training.messages import Control, Message, RunUntil, Stop, TrainerJob, decode, encode


def main(job: str, link: Connection, death: Connection, log_path: str) -> None:
    """Train `job`, a TrainerJob as JSON, once `link` has told until when it may run."""
    _detach()
    die_with_writer(death.fileno())
    _redirect_output(log_path)
    deadline = Deadline(_first_allowance(link))
    control = Control()
    threading.Thread(target=_obey, args=(link, deadline, control), name="control", daemon=True).start()
    _train(TrainerJob.model_validate_json(job), link, control)


def look_around(link: Connection, device: str) -> None:
    """The throw-away child: says what a trainer would find, {"preloaded": bool, "gpus": int, "reason": str or None}.

    `reason`: why nothing was preloaded.
    """
    preloaded = "worker.preload" in sys.modules
    reason = None if preloaded else _why_not()
    gpus = sys.modules["torch"].cuda.device_count() if preloaded and device == "cuda" else 0
    link.send_bytes(json.dumps({"preloaded": preloaded, "gpus": gpus, "reason": reason}).encode())


def _why_not() -> str | None:
    """The error that the fork server has kept to itself."""
    try:
        importlib.import_module("worker.preload")
    except ImportError as error:
        return str(error)
    return None


def _detach() -> None:
    """A session of its own, deaf to what stops a worker, and the first that the kernel kills where memory runs out."""
    os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _redirect_output(log_path: str) -> None:
    """Everything written to descriptors 1 and 2, by Python or by C, goes to the log file, line by line."""
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:  # the checkpoint will say what is wrong with the folder; what is printed is lost
        log = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    faulthandler.enable(sys.stderr)


def _first_allowance(link: Connection) -> float:
    """Sent after the start, not with it: a start may take longer than a lease, while the heartbeat goes on."""
    message = decode(link.recv_bytes())
    if not isinstance(message, RunUntil):
        raise TypeError(f"a trainer is first told RunUntil, not {message}")
    return message.boottime


def _obey(link: Connection, deadline: Deadline, control: Control) -> None:
    """Heed the worker's messages until it is gone; the death pipe sees to the rest."""
    while True:
        try:
            message = decode(link.recv_bytes())
        except (EOFError, OSError):
            return
        match message:
            case RunUntil():
                deadline.move(message.boottime)
            case Stop():
                control.stop = message.kind


def _train(job: TrainerJob, link: Connection, control: Control) -> None:
    """Imported here, not above: the worker imports this module too, and stays without torch."""
    from worker.training.run import run

    def emit(message: Message) -> None:
        link.send_bytes(encode(message))

    run(job, emit, control)
