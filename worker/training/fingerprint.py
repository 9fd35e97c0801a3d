"""What besides spec and checkpoint decides the bits of a run, and the process-wide settings it needs.

With an equal fingerprint a resumed run is bit-identical to one that never stopped.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optim_core import backend, gpu
from traind.spec import Resolved
from worker.training.errors import DeviceUnavailable

Fingerprint = dict[str, Any]


def settle(resolved: Resolved) -> torch.device:
    """Set threads and determinism for this process; return the device. Raises DeviceUnavailable."""
    if resolved.threads is not None:
        torch.set_num_threads(resolved.threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    if resolved.device != "cuda":
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not torch.cuda.is_available():
        raise DeviceUnavailable("the job asks for device cuda, but torch finds no GPU on this worker")
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda", torch.cuda.current_device())


def fingerprint(device: torch.device, dataset_sha256: str) -> Fingerprint:
    """Versions, optimizer backend, device and data of this process, as JSON values."""
    found: Fingerprint = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "optimizer": optimizer_backend(device.type),
        "device": device.type,
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dataset_sha256": dataset_sha256,
    }
    if device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        }
    return found


def optimizer_backend(device: str) -> str:
    """What updates parameters on "cpu" or "cuda": "native (avx512)", "triton 3.7.1" or the like, or "torch".

    Without why it is "torch": that changes no bit.
    """
    found = gpu.backend() if device == "cuda" else backend()
    return "torch" if found.startswith("torch ") else found


def differences(now: Fingerprint, then: Fingerprint) -> list[str]:
    """Each entry that is not equal, as a person reads it."""
    keys = dict.fromkeys((*then, *now))
    return [f"{key}: was {then.get(key)}, is {now.get(key)}" for key in keys if now.get(key) != then.get(key)]


def cpu_model() -> str:
    """The processor's name: matrix kernels are chosen by it, so two models may differ in the last bit."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.processor()  # the latter starts a process
