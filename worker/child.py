"""What runs in the trainer process around `worker.training`: its session, its output, its deadline, its pipes.

`main` is the entry of a trainer; `look_around` of the throw-away child that warms the fork server up. Neither knows
a database. The worker sends `RunUntil` and nothing else; everything the training emits goes back on the same pipe.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from worker.deadline import Deadline
from worker.death_pipe import die_with_writer
from worker.training.messages import Control, Failed, Message, RunUntil, TrainerJob, decode, encode


def main(job: str, run_until: float, link: Connection, death: Connection, log_path: str) -> None:
    """Train `job`, a TrainerJob as JSON; until `run_until` (worker.clock.boottime) at first, then as told by `link`."""
    _detach()
    deadline = Deadline(run_until)
    die_with_writer(death.fileno())
    _redirect_output(log_path)
    threading.Thread(target=_obey, args=(link, deadline), name="control", daemon=True).start()
    sending = threading.Lock()

    def emit(message: Message) -> None:
        data = encode(message)
        with sending:
            link.send_bytes(data)

    _train(TrainerJob.model_validate_json(job), emit)


def look_around(link: Connection, device: str) -> None:
    """Say what a child of this fork server finds: {"torch": version or null, "cuda": number of GPUs}."""
    torch = sys.modules.get("torch")
    found = {"torch": getattr(torch, "__version__", None), "preload": "worker.preload" in sys.modules, "cuda": 0}
    if torch is not None and device == "cuda":
        found["cuda"] = torch.cuda.device_count()
    link.send_bytes(json.dumps(found).encode())
