"""`traind up` and `traind down`, as a user and as a crash would have them."""

from __future__ import annotations

import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from local.listener import Listener
from tests.local.families import PATIENT, assert_gone, kill
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
