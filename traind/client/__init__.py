"""The Python client of a traind service.

    with Client("http://127.0.0.1:8321", "td_…") as client:
        job = client.submit({"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "adam"}})
        job = client.wait(job.id)

Calls raise `traind.errors.ApiError`. A call is repeated with back-off if the service is temporarily unreachable; resume
and retry are repeated only if they were certainly not carried out. `Client` and the answers are imported on first use,
because some commands of the command line need neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traind.client.answers import (
        AuditResult,
        Buckets,
        CatalogueEntry,
        Check,
        Checkpoint,
        DryRun,
        Event,
        HeldJob,
        Job,
        Metrics,
        Progress,
        Series,
        VerifyResult,
        Worker,
    )
    from traind.client.client import Client

__all__ = [
    "AuditResult",
    "Buckets",
    "CatalogueEntry",
    "Check",
    "Checkpoint",
    "Client",
    "DryRun",
    "Event",
    "HeldJob",
    "Job",
    "Metrics",
    "Progress",
    "Series",
    "VerifyResult",
    "Worker",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'traind.client' has no attribute {name!r}")
    home = "traind.client.client" if name == "Client" else "traind.client.answers"
    return getattr(import_module(home), name)
