"""What the machine under a worker does to it: no memory, no room, no data, and another clock. All of it is real: the
kernel kills, the disk is full, the file cannot be read.
"""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from jobs.catalog.datasets import FASHION_MNIST
from jobs.queries import Waiting, get_job
from tests.disks import MEBIBYTE, fill, small_disk
from tests.folders import found
from tests.worker.conftest import StartWorker
from tests.worker.memory import memory_group
from tests.worker.service import BRIEF, LONG, Service, until

HUGE = BRIEF | {
    "dataset": {"name": "synthetic_regression", "n_samples": 100, "n_features": 16},
    "model": {"name": "mlp", "hidden": [30_000, 30_000]},
}
"""3.6 GB of weights."""
ANY = {"WORKER_MEMORY_BYTES": str(1 << 40)}
"""A worker that takes it nevertheless."""
FASHION = BRIEF | {"dataset": {"name": "fashion_mnist"}}
FIRST_FILE = "train-images-idx3-ubyte.gz"


class TestMemory:
    def test_the_kernel_kills_the_trainer_and_nothing_else(
        self, service: Service, start: StartWorker, queue: str
    ) -> None:
        """The worker, its fork server and the trainer share the limit; the trainer asks to be killed first."""
        with memory_group(600 * MEBIBYTE) as group, start("narrow", **ANY) as worker:
            group.add([worker.pid, *(child.pid for child in psutil.Process(worker.pid).children(recursive=True))])
            small = service.submit(LONG, queue=queue)
            service.wait_step(small, 50)
            assert asks_to_be_killed(worker.trainer()) > asks_to_be_killed(worker.fork_server())
            assert asks_to_be_killed(worker.fork_server()) == asks_to_be_killed(psutil.Process(worker.pid))
            service.cancel(small)
            job_id = service.submit(HUGE, queue=queue, max_attempts=2)
            job = service.wait_final(job_id)
            brief = service.wait_final(service.submit(BRIEF, queue=queue))
            assert group.kills == 2

        assert (job.state, job.error["code"], job.crash_count) == ("failed", "trainer-killed", 2)
        assert "out of memory" in job.error["message"]
        assert [(a.outcome, a.error["signal"]) for a in service.attempts(job_id)] == [("crashed", "SIGKILL")] * 2
        assert (brief.state, brief.attempt) == ("succeeded", 1)

    def test_memory_that_is_refused_is_not_asked_for_again(
        self, service: Service, start: StartWorker, queue: str
    ) -> None:
        """A limit on the address space (ulimit -v): the allocation fails, nobody is killed."""
        with start("refused", **ANY) as worker:
            server = worker.fork_server()
            limit = server.memory_info().vms + 2_048 * MEBIBYTE
            server.rlimit(psutil.RLIMIT_AS, (limit, limit))
            job = service.wait_final(service.submit(HUGE, queue=queue))
            brief = service.wait_final(service.submit(BRIEF, queue=queue))

        assert (job.state, job.error["code"], job.attempt, job.crash_count) == ("failed", "out-of-memory", 1, 0)
        assert "smaller batch_size or model" in job.error["message"]
        assert brief.state == "succeeded"


class TestScratch:
    @pytest.mark.slow
    def test_a_full_disk_is_told_and_once_there_is_room_the_job_goes_on(
        self, service: Service, start: StartWorker, queue: str, tmp_path: Path
    ) -> None:
        """No checkpoint can be written, and the worker takes no job, until somebody makes room."""
        with small_disk(tmp_path / "disk", 16 * MEBIBYTE) as disk, start("full", SCRATCH_DIR=str(disk)):
            job_id = service.submit(LONG, queue=queue, max_attempts=10)
            service.wait_saved(job_id)
            filler = fill(disk)
            full_at = service.rows("SELECT clock_timestamp() AS now")[0].now
            until(lambda: codes(service, job_id), lambda told: len(told) >= 1)
            saved_step = service.job(job_id).saved_step
            until(lambda: found(disk, f"*/{job_id}-1"), lambda left: not left)
            seen_at = "SELECT last_seen_at FROM worker WHERE name = 'full'"
            until(lambda: service.rows(seen_at)[0].last_seen_at, lambda seen: seen > full_at)
            filler.unlink()
            service.wait(job_id, lambda job: job.state == "running" and job.saved_step > saved_step)
            service.cancel(job_id)
            service.wait_final(job_id)
            until(lambda: found(disk, "*.safetensors"), lambda left: not left)

        assert set(codes(service, job_id)) == {"scratch-full"}
        first, *others = service.attempts(job_id)
        assert (first.outcome, first.error["retryable"]) == ("crashed", True)
        assert str(disk) in first.error["message"]
        assert {attempt.from_step for attempt in others} == {saved_step}

    def test_a_disk_that_fills_while_a_checkpoint_is_written(
        self, service: Service, start: StartWorker, queue: str
    ) -> None:
        """/dev/full in place of the next files: room when it was asked for, none when it is needed."""
        with start("filling") as worker:
            job_id = service.submit(LONG, queue=queue)
            service.wait_saved(job_id)
            trainer = worker.trainer()
            trainer.suspend()
            (folder,) = worker.scratch.glob(f"*/{job_id}-1")
            first = service.job(job_id).observed_step // 200 * 200
            for step in range(first, first + 10_000, 200):
                with contextlib.suppress(FileExistsError):
                    (folder / f"step-{step}-model.safetensors").symlink_to("/dev/full")
            trainer.resume()
            again = service.wait(job_id, lambda job: (job.attempt, job.state) == (2, "running"))
            assert not folder.exists()
            service.wait(job_id, lambda job: job.saved_step > again.saved_step)
            service.cancel(job_id)
            service.wait_final(job_id)

        attempts = service.attempts(job_id)
        assert (attempts[0].outcome, attempts[0].error["code"]) == ("crashed", "scratch-full")
        assert "did not fit" in attempts[0].error["message"]
        assert attempts[1].from_step >= 200
        assert not service.rows(
            "SELECT 1 FROM checkpoint WHERE job_id = :job AND attempt = 1 AND NOT complete", job=job_id
        )


class TestData:
    def test_each_way_of_not_being_there_has_its_code(
        self, service: Service, start: StartWorker, queue: str, tmp_path: Path
    ) -> None:
        """The job waits for another worker, holds up none, and no attempt is used up."""
        here = tmp_path / "data"
        here.mkdir()
        with start("reading", FASHION_MNIST_DIR=str(here)):
            job_id = service.submit(FASHION, queue=queue, max_attempts=1)
            assert service.wait_final(service.submit(BRIEF, queue=queue)).state == "succeeded"
            assert f"is neither in {here} nor" in waits_for_data(service, job_id, "TRAIND_FASHION_MNIST_URL")
            assert service.job(job_id).attempt == 0
            fill_with(here, gzip.compress(bytes(100_000))[:-20])
            waits_for_data(service, job_id, f"{here / FIRST_FILE} is not a gzip file")

        assert codes(service, job_id) == ["dataset-corrupt"]
        job = service.job(job_id)
        assert (job.state, job.crash_count, job.observed_step) == ("queued", 0, 0)

    def test_another_content_is_tried_once_and_a_bad_block_is_seen_before(
        self, service: Service, start: StartWorker, queue: str, tmp_path: Path
    ) -> None:
        fill_with(tmp_path, gzip.compress(bytes(100_000)))
        with start("reading", FASHION_MNIST_DIR=str(tmp_path)):
            job_id = service.submit(FASHION, queue=queue, max_attempts=1)
            waits_for_data(service, job_id, "SHA-256")
            (tmp_path / FIRST_FILE).unlink()
            (tmp_path / FIRST_FILE).symlink_to("/proc/self/mem")  # reading its first byte fails
            waits_for_data(service, job_id, "cannot be read (Input/output error)")

        assert codes(service, job_id) == ["dataset-corrupt"]

    def test_a_worker_that_has_files_takes_it(
        self, service: Service, start: StartWorker, queue: str, tmp_path: Path
    ) -> None:
        """Torn ones, which it finds out by an attempt."""
        with start("bare"):
            job_id = service.submit(FASHION, queue=queue, max_attempts=1)
            waits_for_data(service, job_id, "TRAIND_FASHION_MNIST_URL")
            fill_with(tmp_path, b"torn")
            with start("equipped", FASHION_MNIST_DIR=str(tmp_path)):
                until(lambda: codes(service, job_id), bool)
                waits_for_data(service, job_id, f"{tmp_path / FIRST_FILE} is not a gzip file")

        assert codes(service, job_id) == ["dataset-corrupt"]
        assert (service.job(job_id).state, service.job(job_id).crash_count) == ("queued", 0)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("pieces", "code"), [(30, "dataset-corrupt"), (0, "trainer-stalled")], ids=["slow", "silent"]
    )
    def test_a_slow_download_is_a_sign_of_life_and_a_silent_one_is_none(
        self, service: Service, start: StartWorker, queue: str, pieces: int, code: str
    ) -> None:
        """What arrives in the end is not Fashion-MNIST, and that is what the slow one is told."""
        with web_server(pieces) as url, start("loading", FASHION_MNIST_URL=url, STALL_TIMEOUT_SECONDS="4"):
            began = time.monotonic()
            job_id = service.submit(FASHION, queue=queue, max_attempts=1)
            assert until(lambda: codes(service, job_id), bool) == [code]
            assert time.monotonic() - began > 4


def asks_to_be_killed(process: psutil.Process) -> int:
    return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())


def fill_with(folder: Path, content: bytes) -> None:
    for source in FASHION_MNIST.sources:
        (folder / f"{source}.gz").write_bytes(content)


def waits_for_data(service: Service, job_id: UUID, told: str) -> str:
    """What the job says that it waits for, once that is data, and `told` is in it."""

    def message() -> str:
        with service.engine.begin() as conn:
            why = get_job(conn, service.project_id, job_id).waiting_for
        return why.message if why is not None and why.reason is Waiting.DATASET else ""

    return until(message, lambda said: told in said)


def codes(service: Service, job_id: UUID) -> list[str]:
    """Of the job's ended attempts."""
    return [attempt.error["code"] for attempt in service.attempts(job_id) if attempt.error]


@contextmanager
def web_server(pieces: int) -> Iterator[str]:
    """Sends `pieces` of ten bytes, five a second, then nothing more until the client or the test goes."""
    ended = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(pieces):
                self.wfile.write(bytes(10))
                if ended.wait(0.2):
                    return
            if not pieces:
                ended.wait()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            ended.set()
            server.shutdown()
            thread.join()
