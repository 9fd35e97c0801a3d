"""The demo: what it shows, what it keeps, and that nothing of it runs on, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from local.demo import _train
from local.errors import LocalError
from local.supervisor import Service
from tests.local.families import assert_gone, kill
from tests.traind.scripted import answer, scripted
from traind.cli.errors import INTERRUPTED
from traind.client import Client

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "traind", "demo", "--data-dir")
ORPHAN_SECONDS = 60.0


def environment() -> dict[str, str]:
    """Without external servers: the demo brings its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TRAIND_")}


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every process but ours that shows the folder in its command line, environment or working folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            shown = [*process.cmdline(), *process.environ().values(), process.cwd()]
            if process.pid != os.getpid() and any(str(data_dir) in text for text in shown):
                found.append(process)
    return found


@contextmanager
def demo_in_the_middle(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A demo that trains, started by a shell, as by make. Yields the shell and the demo."""
    shell = subprocess.Popen(
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", *COMMAND, str(data_dir)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with shell:
        try:
            assert shell.stderr is not None
            assert any("running" in line for line in iter(shell.stderr.readline, ""))
            (demo,) = psutil.Process(shell.pid).children()
            yield shell, demo
        finally:
            kill(processes_of(data_dir))


def test_the_demo_compares_the_optimizers_and_keeps_what_it_says(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([*COMMAND, data_dir], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert processes_of(data_dir) == []
    header, *rows = done.stdout.splitlines()[:4]
    assert [row.split("  ")[0] for row in rows] == ["SGD", "SGD, Nesterov", "Adam"]
    assert re.split(r"\s{2,}", header)[2:4] == ["best acc", "final acc"]
    best = [float(row.split()[-6 if row.endswith(" s") else -5]) for row in rows]
    assert all(0.9 < value <= 1 for value in best), done.stdout
    assert done.stdout.count("█") > 20
    for said in ("step 0/", "loss ", "accuracy ", "steps/s", f"traind up --data-dir {data_dir}", "http://127.0.0.1:"):
        assert said in done.stderr
    job_id = re.findall(r"traind download .* (\S+) -o", done.stderr)[0]
    for name in ("TRAIND_DATABASE_URL", "TRAIND_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    with Service(data_dir, worker=False) as service, Client(service.url, service.api_key) as client:
        path = client.download(client.checkpoints(job_id)[-1].id, data_dir / "model.safetensors")
        assert load_file(path)


@pytest.mark.parametrize("victim", ["parent", "demo"])
def test_nothing_runs_on_when_it_is_killed_in_the_middle(data_dir: Path, victim: str) -> None:
    with demo_in_the_middle(data_dir) as (shell, demo):
        running = [demo, *processes_of(data_dir)]
        assert len(running) > 8  # guards, Postgres and its backends, Redis, api, worker, fork server, trainer
        (demo if victim == "demo" else shell).kill()
        assert_gone(running, within_seconds=ORPHAN_SECONDS)
        assert_gone(processes_of(data_dir), within_seconds=0)


def test_an_interrupt_ends_it_in_order(data_dir: Path) -> None:
    with demo_in_the_middle(data_dir) as (shell, demo):
        running = processes_of(data_dir)
        demo.send_signal(signal.SIGINT)
        assert shell.stderr is not None
        rest = shell.stderr.read()
        assert shell.wait() == INTERRUPTED, rest
        assert "nothing is left running" in rest
        assert not (data_dir / "service.json").exists()
        assert_gone(running, within_seconds=10.0)


def test_data_that_is_nowhere_ends_it_at_once() -> None:
    """Its worker is the only one: the jobs would wait for ever."""
    job = {"id": "j", "state": "queued", "spec": {}, "created_at": "2026-11-22T12:00:00Z"}
    waiting = job | {"waiting_for": {"reason": "dataset", "message": "put the files into /a"}}
    with scripted(answer(waiting, 202)) as service, Client(service.url, "td_x") as client:
        with pytest.raises(LocalError, match="put the files into /a"):
            _train(client, "fashion_mnist", os.getppid())
        assert len(service.seen) == 3
