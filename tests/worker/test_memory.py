"""How much memory a worker counts on: the machine's and its cgroups', and which jobs it takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.queries import Waiting, get_job
from tests.worker.conftest import StartWorker
from tests.worker.service import BRIEF, Service
from tests.worker.test_cores import V2, machine
from worker.memory import usable_memory

V1 = "11 32 0:29 {root} {point} rw - cgroup cgroup rw,memory\n"
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
WIDE = BRIEF | {"model": {"name": "mlp", "hidden": [2048, 1024]}, "training": {"steps": 2, "threads": 1}}
"""Its trainer is expected to need some 270 MB, a little more than 256 MiB."""
UNLIMITED = "9223372036854771712\n"
"""As version 1 says that there is no limit."""


@pytest.mark.parametrize(("files", "expected"), [
    ({"a/b/memory.max": "1000000\n"}, 1_000_000),
    ({"a/b/memory.max": "max\n"}, MACHINE),
    ({"a/b/memory.max": "max\n", "a/memory.max": "500000\n"}, 500_000),
    ({"a/b/memory.max": "1000000\n", "memory.max": "2000000\n"}, 1_000_000),
    ({"other/memory.max": "1000\n"}, MACHINE),
    ({"a/b/memory.max": ""}, MACHINE),
    ({"a/b/memory.max": "a lot\n"}, MACHINE),
    ({"a/b/memory.max": "-1\n"}, MACHINE),
    ({"a/b/memory.max": "0\n"}, MACHINE),
    ({"a/b/memory.max": "9" * 40}, MACHINE),
    ({}, MACHINE),
])  # fmt: skip
def test_limits_of_version_2(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert usable_memory(machine(tmp_path, mounts=V2, groups="0::/a/b\n", files=files)) == expected


@pytest.mark.parametrize(("files", "expected"), [
    ({"a/b/memory.limit_in_bytes": "1000000\n"}, 1_000_000),
    ({"a/b/memory.limit_in_bytes": UNLIMITED}, MACHINE),
    ({"a/b/memory.limit_in_bytes": UNLIMITED, "a/memory.limit_in_bytes": "4096\n"}, 4_096),
])  # fmt: skip
def test_limits_of_version_1(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    groups = "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/\n"
    assert usable_memory(machine(tmp_path, mounts=V1, groups=groups, files=files)) == expected


def test_a_machine_without_cgroups_has_all_its_memory(tmp_path: Path) -> None:
    assert usable_memory(tmp_path / "nothing") == MACHINE


def test_a_job_that_does_not_fit_waits_for_another_worker(service: Service, start: StartWorker, queue: str) -> None:
    with start("narrow", WORKER_MEMORY_BYTES=str(2**28)) as narrow:
        job_id = service.submit(WIDE, queue=queue)
        assert service.wait_final(service.submit(BRIEF, queue=queue)).state == "succeeded", "it holds up no other"
        with service.engine.begin() as conn:
            why = get_job(conn, service.project_id, job_id).waiting_for
        assert why is not None
        assert why.reason is Waiting.MEMORY
        assert why.message.endswith("of memory; the largest worker that could take it has 0.27 GB")
        with start("wide"):
            assert service.wait_final(job_id).state == "succeeded"
        assert narrow.log.count("attempt ended") == 1
