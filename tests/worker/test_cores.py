"""How many cores a worker counts on: affinity and cgroup quotas, from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.cores import cpu_quota, usable_cores

V2 = "31 23 0:28 / {point} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "11 32 0:29 {root} {point} rw - cgroup cgroup rw,cpu,cpuacct\n"


def machine(tmp_path: Path, *, mounts: str, groups: str, files: dict[str, str], root: str = "/") -> Path:
    """A /proc/self whose cgroups are mounted at `tmp_path`/sys fs, which holds `files`."""
    proc, point = tmp_path / "self", tmp_path / "sys fs"
    proc.mkdir()
    escaped = str(point).replace(" ", "\\040")
    (proc / "mountinfo").write_text("1 1 8:1 / / rw - ext4 /dev/x rw\n" + mounts.format(point=escaped, root=root))
    (proc / "cgroup").write_text(groups)
    for name, text in files.items():
        (point / name).parent.mkdir(parents=True, exist_ok=True)
        (point / name).write_text(text)
    return proc


def v1(folder: str, quota: str, period: str = "100000") -> dict[str, str]:
    return {f"{folder}cpu.cfs_quota_us": f"{quota}\n", f"{folder}cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(("files", "expected"), [
    ({"a/b/cpu.max": "150000 100000\n"}, 1.5),
    ({"a/b/cpu.max": "max 100000\n"}, None),
    ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
    ({"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "300000 100000\n"}, 1.0),
    ({"cpu.max": "200000 100000\n"}, 2.0),
    ({"other/cpu.max": "1000 100000\n"}, None),
    ({"a/b/cpu.max": ""}, None),
    ({"a/b/cpu.max": "a lot\n"}, None),
    ({"a/b/cpu.max": "100000 0\n"}, None),
    ({"a/b/cpu.max": "-5 100000\n"}, None),
    ({}, None),
])  # fmt: skip
def test_quotas_of_version_2(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert cpu_quota(machine(tmp_path, mounts=V2, groups="0::/a/b\n", files=files)) == expected


@pytest.mark.parametrize(("files", "expected"), [
    (v1("a/b/", "250000"), 2.5),
    (v1("a/b/", "-1"), None),
    (v1("a/b/", "-1") | v1("a/", "40000", "20000"), 2.0),
    (v1("a/b/", "x"), None),
])  # fmt: skip
def test_quotas_of_version_1(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    groups = "4:memory:/m\n3:cpu,cpuacct:/a/b\n0::/\n"
    assert cpu_quota(machine(tmp_path, mounts=V1, groups=groups, files=files)) == expected


def test_a_container_sees_its_own_group_as_the_mounted_one(tmp_path: Path) -> None:
    """Docker without a namespace of cgroups: the path in /proc is the host's, the mount begins at the container's."""
    files = v1("", "300000") | v1("inner/", "100000")
    groups = "3:cpu,cpuacct:/docker/abc/inner\n"
    assert cpu_quota(machine(tmp_path, mounts=V1, root="/docker/abc", groups=groups, files=files)) == 1.0


def test_a_group_outside_of_what_is_mounted_is_the_mounted_one(tmp_path: Path) -> None:
    groups = "3:cpu,cpuacct:/docker/abcdef\n"
    proc = machine(tmp_path, mounts=V1, root="/docker/abc", groups=groups, files=v1("", "300000"))
    assert cpu_quota(proc) == 3.0


def test_both_versions_at_once(tmp_path: Path) -> None:
    files = v1("a/", "300000") | {"b/cpu.max": "200000 100000"}
    groups = "3:cpu,cpuacct:/a\n0::/b\n"
    assert cpu_quota(machine(tmp_path, mounts=V1 + V2, groups=groups, files=files)) == 2.0


def test_a_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "nothing") is None
    assert usable_cores(tmp_path / "nothing") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("quota", "cores"), [("10000", 1), ("199000", 1), ("99900000", None)])
def test_cores_are_whole_and_at_least_one(tmp_path: Path, quota: str, cores: int | None) -> None:
    files = {"a/cpu.max": f"{quota} 100000"}
    found = usable_cores(machine(tmp_path, mounts=V2, groups="0::/a\n", files=files))
    assert found == (cores or len(os.sched_getaffinity(0)))
