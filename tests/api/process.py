"""`python -m api` as a process, on a socket that is bound before it starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ApiProcess:
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def logged(self, request_id: str) -> list[dict[str, Any]]:
        """The log's entries about one request. They follow its answer, so they are waited for; none is an error."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            lines = self.log.read_text().splitlines(keepends=True)
            entries = [json.loads(line) for line in lines if line.endswith("\n")]
            if found := [entry for entry in entries if entry.get("request_id") == request_id]:
                return found
            time.sleep(0.02)
        raise AssertionError(f"nothing was logged about {request_id}")


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with exactly these settings."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("TRAIND_")}
    return rest | {f"TRAIND_{name.upper()}": value for name, value in settings.items()}


@contextmanager
def serve(database_url: str, redis_url: str, *, log: Path, **settings: str) -> Iterator[ApiProcess]:
    """A running api; connections wait in the socket's queue until it accepts. Stopped at the end."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api", "--fd", str(listener.fileno())],
            env=environment(database_url=database_url, redis_url=redis_url, **settings),
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=output,
        )
        port = listener.getsockname()[1]
    try:
        yield ApiProcess(f"http://127.0.0.1:{port}", log, process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=20)
