"""The smaller parts of a worker by themselves."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from jobs.errors import Fenced
from jobs.settings import Settings
from jobs.states import State
from jobs.storage import Storage
from tests.training.scenario import trainer_job
from tests.worker.service import PATIENT
from worker import health, output
from worker.clock import boottime
from worker.condition import Condition, rest_seconds
from worker.judgement import gone, stalled
from worker.scratch import own_folder, remove_dead
from worker.trainer import Trainer
from worker.verdict import Crash, Decided, Finish, Lost, Requeue, Verdict
from worker.writes import write_through


def test_the_first_verdict_counts() -> None:
    decisions: list[str] = []
    verdict = Verdict(lambda: decisions.append("killed"))
    verdict.check()
    verdict.decide(Requeue("drained"))
    verdict.decide(Finish(State.CANCELLED, summary={}))

    assert verdict.ending == Requeue("drained")
    assert decisions == ["killed"]
    assert verdict.wait(0)
    for late in (verdict.check, lambda: verdict.pause(60)):
        with pytest.raises(Decided):
            late()


def test_what_a_thread_raises_becomes_the_verdict() -> None:
    def fenced() -> None:
        raise Fenced("attempt 1")

    def broken() -> None:
        raise ValueError("a bug")

    def full() -> None:
        Path("/dev/full").write_text("x")

    def gone() -> None:
        Path("/nowhere/at/all").write_text("x")

    def out_of_descriptors() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    first, second, *others = (Verdict(lambda: None) for _ in range(5))
    first.guard(fenced)
    second.guard(broken)
    for verdict, body in zip(others, (full, gone, out_of_descriptors), strict=True):
        verdict.guard(body)
    assert first.ending == Lost()
    assert isinstance(second.ending, Crash)
    assert second.ending.error == {"code": "worker-error", "message": "ValueError: a bug", "retryable": True}
    endings = [verdict.ending for verdict in others]
    assert [ending.error["code"] for ending in endings if isinstance(ending, Crash)] == [
        *("scratch-full", "scratch-unusable", "worker-error")
    ]


def test_a_write_is_repeated_over_an_outage(engine: Engine) -> None:
    tries: list[int] = []
    pauses: list[float] = []

    def write(conn: Connection) -> int:
        tries.append(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())
        if len(tries) < 3:
            with engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": tries[-1]})
        return conn.execute(text("SELECT 7")).scalar_one()

    assert write_through(engine, write, pauses.append) == 7
    assert len(set(tries)) == 3
    assert pauses == [0.05, 0.1]


def test_a_write_that_is_wrong_is_not_repeated(engine: Engine) -> None:
    with pytest.raises(DBAPIError, match="division by zero"):
        write_through(engine, lambda conn: conn.execute(text("SELECT 1 / 0")).all(), pytest.fail)


def test_the_log_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    output.bound(log)
    assert output.read(log) == ""
    with log.open("ab", buffering=0) as printed:
        for number in range(100_000):
            printed.write(f"line {number}\n".encode())
        printed.write(b"\xff\n")
        output.bound(log)
        assert log.stat().st_size == output.KEPT_BYTES
        printed.write(b"the end")

    assert output.read(log).endswith("line 99999\n\ufffd\nthe end")
    assert output.excerpt(output.read(log)).endswith("the end")
    assert len(output.excerpt(output.read(log))) == output.EXCERPT_CHARACTERS


def test_what_an_attempt_could_not_remove_goes_at_the_next_look(tmp_path: Path) -> None:
    """The disk was away when the attempt ended."""
    with own_folder(tmp_path, uuid.uuid4()) as scratch:
        left = scratch.folder / f"{uuid.uuid4()}-3"
        left.mkdir()
        (left / "step-5-model.safetensors").touch()
        assert scratch.trouble() is None
        assert [path.name for path in scratch.folder.iterdir()] == ["lock"]


def test_folders_of_dead_workers_are_removed(tmp_path: Path) -> None:
    hold = (
        "import sys, uuid, pathlib, worker.scratch as s\n"
        "with s.own_folder(pathlib.Path(sys.argv[1]), uuid.uuid4()) as scratch:\n"
        "    print(scratch.folder, flush=True); input()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        theirs = Path(other.stdout.readline().strip())
        with own_folder(tmp_path, uuid.uuid4()) as ours:
            assert theirs.is_dir()
            other.kill()
            other.wait()
            remove_dead(tmp_path)
            assert not theirs.exists()
            assert ours.folder.is_dir()
            assert ours.folder.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("swept", ["all", "folder", "lock"])
def test_a_folder_that_was_swept_away_is_made_again_and_kept(tmp_path: Path, swept: str) -> None:
    """With its lock: no other worker takes it for a dead one's."""
    scratch_dir = tmp_path / "scratch"
    with own_folder(scratch_dir, uuid.uuid4()) as ours:
        if swept == "lock":
            (ours.folder / "lock").unlink()
        else:
            shutil.rmtree(scratch_dir if swept == "all" else ours.folder)
        assert ours.trouble() is None
        look = f"import pathlib, worker.scratch as s; s.remove_dead(pathlib.Path({str(scratch_dir)!r}))"
        subprocess.run([sys.executable, "-c", look], check=True)
        assert ours.folder.is_dir()
        assert ours.folder.stat().st_mode & 0o777 == 0o700
    assert not list(scratch_dir.iterdir())


def test_a_worker_rests_longer_with_each_job_that_meets_its_fault(engine: Engine, tmp_path: Path) -> None:
    with own_folder(tmp_path, uuid.uuid4()) as scratch:
        condition = Condition(scratch, Storage(engine, Settings(min_free_disk_bytes=0)))
        ident = uuid.uuid4()
        condition.attempted(ident, None)
        assert condition.look()
        condition.attempted(ident, "scratch-full: no room")
        assert not condition.look()
        assert condition.trouble is not None
        assert "scratch-full: no room" in condition.trouble
        condition.attempted(uuid.uuid4(), "scratch-full: no room")
        condition.attempted(ident, "scratch-full: none again")
        assert not condition.look()
        assert "attempts of 2 jobs" in condition.trouble
        assert "none again" in condition.trouble
        condition.attempted(ident, None)
        assert condition.look()
        assert condition.trouble is None
    assert [rest_seconds(jobs) for jobs in (0, 1, 2, 3, 10, 10_000)] == [0, 1, 2, 4, 300, 300]


def test_the_health_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIND_SCRATCH_DIR", str(tmp_path))
    command = [sys.executable, "-m", "worker.health", "--name", "w"]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 1
    health.write_health(tmp_path, "w")
    assert subprocess.run(command, check=False).returncode == 0
    assert not health.is_healthy(tmp_path, "another")
    health.write_health(tmp_path, "w", trouble="the disk is full")
    told = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (told.returncode, told.stderr) == (1, "worker w is ill: the disk is full\n")
    for seen in (boottime() - 60, boottime() + 60):
        (tmp_path / "health-w.json").write_text(json.dumps({"boottime": seen}))
        assert not health.is_healthy(tmp_path, "w")
    (tmp_path / "health-w.json").write_text("{")
    assert not health.is_healthy(tmp_path, "w")


def test_the_silence_of_a_frozen_trainer_does_not_count() -> None:
    trainer = Trainer(boottime() + 60)
    heard_at = -1e9
    trainer.freeze()
    assert trainer.silence(heard_at) == 0
    trainer.extend(boottime() + 120)
    assert trainer.silence(heard_at) < 60
    trainer.close()


@pytest.mark.usefixtures("fork_server")
@pytest.mark.parametrize(
    ("seconds", "code"), [(0, "lease-expired"), (5, "trainer-killed")], ids=["too late", "in time"]
)
def test_more_time_that_comes_too_late_hides_not_that_it_ran_out(tmp_path: Path, seconds: float, code: str) -> None:
    """As where Postgres was away for longer than a lease, and its heartbeat is back before its end was looked at."""
    trainer, log = Trainer(boottime() + seconds), tmp_path / "trainer.log"
    try:
        trainer.start(trainer_job(tmp_path, training={"steps": 10**6}).model_dump_json(), log)
        if seconds:
            trainer.extend(boottime() + PATIENT)
            assert trainer.wait(seconds + 1) is None, "it ended when its first time came"
            assert not trainer.ran_out
            trainer.kill()
        assert trainer.wait(PATIENT)
        trainer.extend(boottime() + 2 * PATIENT)
        ending = gone(trainer, log)
    finally:
        trainer.close()
    assert isinstance(ending, Crash)
    assert (ending.error["code"], ending.error["signal"]) == (code, "SIGKILL")


def test_an_upload_that_stands_still_ends_the_attempt() -> None:
    trainer = Trainer(boottime() + 60)
    now = time.monotonic()
    times = {"listening_since": None, "timeout_seconds": 5.0}
    assert stalled(trainer, uploading_since=now - 1, **times) is None
    ending = stalled(trainer, uploading_since=now - 10, **times)
    assert isinstance(ending, Crash)
    assert (ending.error["code"], ending.error["retryable"]) == ("upload-stalled", True)
