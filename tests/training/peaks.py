"""`python -m tests.training.peaks`: trains each TrainerJob of stdin (JSON, one a line) in a child of this process.

As a worker's fork server does. Writes a line per job: the child's largest resident memory and its last message.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from worker.training.waiting import let_threads_sleep

let_threads_sleep()  # before torch is loaded

from worker.training.messages import Control, Message, TrainerJob, encode  # noqa: E402


def main() -> None:
    import worker.preload  # noqa: F401, what every trainer has loaded before it starts

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_in_child(TrainerJob.model_validate_json(line))) + "\n")
        sys.stdout.flush()


def _in_child(job: TrainerJob) -> dict[str, object]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(write, "w") as pipe:
            pipe.write(json.dumps(_train(job)))
            pipe.flush()
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    found: dict[str, object] = json.loads(text)
    return found


def _train(job: TrainerJob) -> dict[str, object]:
    from worker.training.run import run

    heard: list[Message] = []
    run(job, lambda message: heard.__setitem__(slice(None), [message]), Control())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"peak_bytes": int(status["VmHWM"].split()[0]) * 1024, "end": encode(heard[0]).decode()}


if __name__ == "__main__":
    main()
