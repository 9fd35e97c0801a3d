"""traind for Python: `JobSpec`, `Client` and the errors, imported only when they are used.

    from traind import Client, JobSpec

`import traind` itself loads nothing, so that the CLI starts quickly and the service's processes pay for what they use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traind.client import Client as Client
    from traind.errors import ApiError as ApiError
    from traind.errors import InvalidSpec as InvalidSpec
    from traind.errors import Problem as Problem
    from traind.errors import TraindError as TraindError
    from traind.spec import JobSpec as JobSpec

_HOMES = {
    "ApiError": "traind.errors",
    "Client": "traind.client",
    "InvalidSpec": "traind.errors",
    "JobSpec": "traind.spec",
    "Problem": "traind.errors",
    "TraindError": "traind.errors",
}

__all__ = ["ApiError", "Client", "InvalidSpec", "JobSpec", "Problem", "TraindError"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traind' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
