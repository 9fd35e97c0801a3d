"""`traind up` and `traind down`, as a user and as a crash would have them."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from local.listener import Listener
from tests.disks import MEBIBYTE, fill_but, small_disk
from tests.local.families import PATIENT, assert_gone, guards_of, kill
from tests.local.up import Up, traind

Start = Callable[[], Up]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Up(data_dir)))


def stop(up: Up, number: signal.Signals) -> None:
    all_of_it = up.everything()
    up.process.send_signal(number)
    assert up.process.wait(PATIENT) == 0, up.said()
    assert_gone(all_of_it)


def test_up_is_found_kept_running_and_ended_by_down(data_dir: Path, start: Start) -> None:
    up = start()
    up.wait_for("Ctrl-C stops it")
    for private in ("service.json", "api-key"):
        assert stat.S_IMODE((data_dir / private).stat().st_mode) == 0o600
    assert traind("ls", "--data-dir", str(data_dir)).returncode == 0

    second = traind("up", "--data-dir", str(data_dir), "--port", "0")
    assert second.returncode == 1
    assert f"already runs in {data_dir} at {up.url} (process {up.process.pid})" in second.stderr

    for name in ("api", "worker"):
        up.program(name).kill()
        up.wait_for(f"^{name} was ended by SIGKILL; starting it again in 0.5 s")
    assert up.alive()
    assert up.program("worker").is_running()

    all_of_it = up.everything()
    down = traind("down", "--data-dir", str(data_dir))
    assert (down.returncode, up.process.wait(PATIENT)) == (0, 0), up.said()
    assert_gone(all_of_it, within_seconds=0)
    assert not (data_dir / "service.json").exists()
    assert not (data_dir / "run").exists()
    assert "terminating connection" not in (data_dir / "logs" / "postgres.log").read_text()
    assert "no service runs" in traind("down", "--data-dir", str(data_dir)).stderr


def test_up_after_a_stop_and_after_every_kind_of_kill_just_works(data_dir: Path, start: Start) -> None:
    first = start()
    key = first.key()
    all_of_it = first.everything()
    first.process.kill()
    assert_gone(all_of_it)

    second = start()
    assert second.alive()
    assert second.key() == key
    all_of_it = second.everything()
    kill(all_of_it)
    assert_gone(all_of_it)

    third = start()
    assert third.alive()
    assert third.key() == key
    stop(third, signal.SIGINT)
    assert "Ctrl-C again stops at once" in third.said()


def test_it_is_ready_when_a_worker_is(data_dir: Path, tmp_path: Path) -> None:
    """Once the URL is printed the worker has said so in its log and stands in the list; if it is ill, `up` says why."""
    here = ("--data-dir", str(data_dir), "-o", "json")
    with (
        small_disk(tmp_path / "scratch", 16 * MEBIBYTE) as disk,
        closing(Up(data_dir, TRAIND_SCRATCH_DIR=str(disk))) as up,
    ):
        up.wait_for("Ctrl-C stops it")
        assert "worker ready" in (data_dir / "logs" / "worker.log").read_text()
        assert [worker["state"] for worker in json.loads(traind("workers", *here).stdout)] == ["live"]
        filler = fill_but(disk, MEBIBYTE)
        assert f"the scratch folder {disk} is full" in up.wait_for("^the worker is ill and takes no job: ")
        up.program("worker").kill()
        up.wait_for("^worker was ended by SIGKILL")
        assert "make room there" in up.wait_for("^the worker is ill and takes no job: ")
        assert up.alive()
        filler.unlink()
        up.wait_for("^the worker is well again and takes jobs")


def test_a_worker_that_cannot_start_is_told_instead_of_the_url(data_dir: Path) -> None:
    arguments = ("up", "--data-dir", str(data_dir), "--port", "0")
    up = traind(*arguments, TRAIND_WORKER_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert (up.returncode, up.stdout) == (1, "")
    assert "worker ended with status 1" in up.stderr
    assert "no GPU is visible to torch here" in up.stderr
    assert "Traceback" not in up.stderr
    assert not (data_dir / "service.json").exists()


def test_it_starts_under_a_long_tmpdir(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with closing(Up(data_dir, TMPDIR=str(folder), TRAIND_SCRATCH_DIR="")) as up:
        assert up.alive()
        assert list((data_dir / "scratch").glob("worker-*")), "an empty variable is one that is not set"


def test_a_taken_port_is_an_error(data_dir: Path) -> None:
    with Listener("127.0.0.1", 0) as taken:
        port = taken.url.rpartition(":")[2]
        up = traind("up", "--data-dir", str(data_dir), "--port", port)
    assert up.returncode == 1
    assert f"can't listen on 127.0.0.1 port {port}" in up.stderr
    assert "Traceback" not in up.stderr


def test_a_folder_of_other_things_is_an_error(data_dir: Path) -> None:
    (data_dir / "thesis.tex").touch()
    up = traind("up", "--data-dir", str(data_dir))
    assert up.returncode == 1
    assert "not empty and no data folder of traind" in up.stderr
    assert [path.name for path in data_dir.iterdir()] == ["thesis.tex"]


def test_without_a_worker_jobs_wait_and_can_be_cancelled(data_dir: Path) -> None:
    with closing(Up(data_dir, "--no-worker")) as up:
        up.wait_for("Ctrl-C stops it")
        assert not list(guards_of("worker", parent=up.process.pid))
        here = ["--data-dir", str(data_dir)]
        submitted = traind(
            "submit", "--dataset", "digits", "--model", "mlp", "--optimizer", "sgd", "--lr", "0.1", *here
        )
        assert submitted.returncode == 0, submitted.stderr
        job_id = submitted.stdout.split()[0]
        cancelled = traind("cancel", job_id, *here)
        assert cancelled.returncode == 0, cancelled.stderr
        assert "cancelled" in traind("ls", *here).stdout
        stop(up, signal.SIGTERM)
