"""traind for Python: `JobSpec`, `Client`, `load_model` and the errors, imported only when they are used.

    from traind import Client, JobSpec, load_model

`import traind` itself loads nothing, so that the CLI starts quickly and the service's processes pay for what they use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traind.client import Client as Client
    from traind.errors import ApiError as ApiError
    from traind.errors import InvalidSpec as InvalidSpec
    from traind.errors import ModelUnreadable as ModelUnreadable
    from traind.errors import Problem as Problem
    from traind.errors import TraindError as TraindError
    from traind.spec import JobSpec as JobSpec
    from traind.weights import load_model as load_model

_HOMES = {
    "ApiError": "traind.errors",
    "Client": "traind.client",
    "InvalidSpec": "traind.errors",
    "JobSpec": "traind.spec",
    "ModelUnreadable": "traind.errors",
    "Problem": "traind.errors",
    "TraindError": "traind.errors",
    "load_model": "traind.weights",
}

__all__ = ["ApiError", "Client", "InvalidSpec", "JobSpec", "ModelUnreadable", "Problem", "TraindError", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traind' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
