"""A worker that stopped taking jobs: whose Celery hangs, and whose own slot does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.worker.processes import SHORT
from tests.worker.service import BRIEF, PATIENT, Service
from worker.rounds import HUNG

DEAF = "main.listen = lambda *_, **__: threading.Event().wait(600)"
"""As Celery when its loop hangs: Redis is there, messages are sent, nobody hears them."""
HANGING = "slot.IDLE_SECONDS = rounds.SEEN_SECONDS = 0.5; slot.Slot._look = lambda self: threading.Event().wait(600)"


@contextmanager
def broken(service: Service, folder: Path, queue: str, damage: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process with one part of it replaced."""
    imports = "import sys, threading, worker.__main__ as main; from worker import rounds, slot"
    code = f"{imports}; {damage}; sys.exit(main.main())"
    given = SHORT | {"DATABASE_URL": service.database_url, "REDIS_URL": service.redis_url, "WORKER_QUEUES": queue}
    given |= {"SCRATCH_DIR": str(folder / "scratch"), "IDLE_POLL_SECONDS": "0.2"}
    environment = os.environ | {f"TRAIND_{name}": value for name, value in given.items()}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_jobs_start_though_nobody_hears_the_doorbell(service: Service, tmp_path: Path, queue: str) -> None:
    with broken(service, tmp_path, queue, DEAF):
        assert service.wait_final(service.submit(BRIEF, queue=queue)).state == "succeeded"
    assert "the doorbell was not heard" in (tmp_path / "log").read_text()


def test_a_worker_whose_slot_hangs_ends(service: Service, tmp_path: Path, queue: str) -> None:
    with broken(service, tmp_path, queue, HANGING) as process:
        assert process.wait(PATIENT) == HUNG
    assert "the slot hangs" in (tmp_path / "log").read_text()
