"""This machine: clock, versions, kernel and GPU. What torch says is asked of a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from local.doctor.findings import Finding, error, ok, some, warning
from local.doctor.server import looking

SKEW_SECONDS = 1.0
LOOKS_AT_THE_CLOCK = 3
PROBE_SECONDS = 120.0
PACKAGES = ("traind", "torch", "numpy")
NO_TORCH = "ModuleNotFoundError: No module named 'torch'"
INSTALL_WORKER = "pip install 'traind[worker]'"
DRIVER = Path("/proc/driver/nvidia/version")

PROBE = """
import json, warnings
warnings.simplefilter("ignore")
import torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": [], "gpu_error": None}
try:
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
except Exception as error:
    found["gpu_error"] = str(error)
try:
    import optim_core
    found["kernel"], found["kernel_error"] = optim_core.backend(), None
except Exception as error:
    found["kernel"], found["kernel_error"] = None, str(error)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Torch:
    """What a process that imports torch finds; `problem` says why it could not."""

    kernel: str | None = None
    kernel_error: str | None = None
    cuda: str | None = None
    gpus: tuple[str, ...] = ()
    gpu_error: str | None = None
    problem: str | None = None


def clock(database: Engine, *, lease_seconds: float, now: Callable[[], float] = time.time) -> Finding:
    """This machine's clock beside the database's; the quickest of some looks counts. Raises DBAPIError."""
    looks = []
    with looking(database) as conn:
        for _ in range(LOOKS_AT_THE_CLOCK):
            before = now()
            there = float(conn.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
            after = now()
            looks.append((after - before, (before + after) / 2 - there))
    took, skew = min(looks)
    return judge_clock(skew, took / 2, lease_seconds)


def judge_clock(skew: float, uncertainty: float, lease_seconds: float) -> Finding:
    """`skew` is how far this machine is ahead of the database, give or take `uncertainty`; seconds."""
    beyond = max(0.0, abs(skew) - uncertainty)
    if beyond <= SKEW_SECONDS:
        return ok("clock", f"within {abs(skew) + uncertainty:.2f} s of the database's")
    where = "ahead of" if skew > 0 else "behind"
    what = (
        f"{abs(skew):,.1f} s {where} the database's. Leases and deadlines do not use it, so no job is lost; the times"
        " in this machine's logs are wrong, and TLS certificates may be refused"
    )
    fix = "keep the clocks by NTP (chronyd, systemd-timesyncd) on both machines"
    return (error if beyond > lease_seconds else warning)("clock", what, fix)


def probe() -> Torch:
    """Import torch and optim_core in a process of its own and look around."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Torch(problem=f"importing torch took longer than {PROBE_SECONDS:g} s")
    except (ValueError, IndexError):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Torch(problem=lines[-1])
    names = ("kernel", "kernel_error", "cuda", "gpu_error")
    return Torch(gpus=tuple(found["gpus"]), **{name: found[name] for name in names})


def installed() -> dict[str, str]:
    """Python and those of PACKAGES that are here, with their versions."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def versions(here: Mapping[str, str], workers: Iterable[tuple[str, Mapping[str, str]]]) -> Iterator[Finding]:
    """What runs here beside what the live `workers` (name, versions) run."""
    shown = ", ".join(f"{'Python' if name == 'python' else name} {number}" for name, number in here.items())
    everywhere = list(workers)
    n_findings = 0
    for package in ("python", *PACKAGES):
        who: dict[str, list[str]] = {}
        for name, known in [("here", here), *everywhere]:
            if package in known:
                who.setdefault(known[package], []).append(name)
        if len(who) > 1:
            n_findings += 1
            what = "; ".join(f"{number} {some(names)}" for number, names in who.items())
            fix = "install the same versions everywhere: under others a job is not resumed to the bit"
            yield warning("versions", f"{package} differs: {what}", fix)
    if not n_findings:
        also = f"; {len(everywhere)} live worker(s) run the same" if everywhere else ""
        yield ok("versions", shown + also)


def kernel(found: Torch, *, needed: bool) -> Finding:
    """Which kernel updates parameters on the CPU here; `needed` where a worker is known to belong here."""
    if found.problem == NO_TORCH and not needed:
        return warning("kernel", "no worker can run here: torch is not installed", f"for a worker: {INSTALL_WORKER}")
    if found.problem or found.kernel is None:
        what = found.problem or found.kernel_error or "optim_core cannot be imported"
        return error("kernel", f"no worker can run here: {what}", f"install it: {INSTALL_WORKER}")
    if found.kernel.startswith("native"):
        return ok("kernel", found.kernel)
    fix = (
        "install a C compiler with OpenMP (Debian: gcc libc6-dev) and install traind again"
        if "(" in found.kernel
        else "unset TRAIND_KERNEL, if the native kernel is wanted"
    )
    return warning("kernel", f"plain torch updates the parameters, more slowly: {found.kernel}", fix)


def gpu(found: Torch, *, wanted: bool, driver: str | None) -> Finding:
    """`wanted` where this machine's worker is set to train on one."""
    if found.gpus:
        unused = "" if wanted else "; unused: this machine's worker is set to the CPU"
        return ok("gpu", f"{len(found.gpus)}: {some(list(found.gpus))}{unused}")
    driver_text = f"NVIDIA driver {driver}" if driver else "no NVIDIA driver"
    built = f"torch for CUDA {found.cuda}" if found.cuda else "torch without CUDA"
    what = f"none that torch sees ({driver_text}, {built})" + (f": {found.gpu_error}" if found.gpu_error else "")
    if not wanted:
        return ok("gpu", what)
    if driver and not found.cuda:
        return error("gpu", what, "install a torch that is built for CUDA (see pytorch.org)")
    if driver:
        return error("gpu", what, "look at nvidia-smi and CUDA_VISIBLE_DEVICES; in a container, hand the GPU in")
    return error("gpu", what, "install the NVIDIA driver, or set TRAIND_WORKER_DEVICE=cpu and its queues")


def driver() -> str | None:
    """The NVIDIA driver's version, or None without one."""
    try:
        words = DRIVER.read_text().split()
    except OSError:
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), "of unknown version")
