"""Writes docs/configuration.md from the settings: `python -m jobs.settings_doc docs/configuration.md`."""

from __future__ import annotations

import argparse
import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from jobs.settings import Settings

INTRO = """\
# Configuration

<!-- Written by `python -m jobs.settings_doc docs/configuration.md`; a test compares. Change jobs/settings.py. -->

Every process reads its settings from environment variables. If a value is unusable, the process exits at start with
code 2 and names the variable and the reason. A variable with a misspelt name has no effect; the api, a worker,
`traind up` and `traind doctor` report it at start and suggest the correct name. `traind up` passes its environment on
to the api and the worker. Settings that affect leases must be equal on all machines.

| variable | type | default | meaning |
|---|---|---|---|
"""

OTHERS = """
## Command line

| variable | meaning |
|---|---|
| `TRAIND_URL` | Address of the service that the CLI calls. Default: the local service of the data folder. |
| `TRAIND_API_KEY` | API key for that address. |
| `TRAIND_DATA_DIR` | Data folder of `traind up`, in which the CLI also looks for a local service. Default: \
/var/lib/traind as root, else traind in the user's data folder. |

## Optimizers

| variable | meaning |
|---|---|
| `TRAIND_KERNEL` | `native` or `torch`: the code that updates parameters on the CPU; each worker reads it once. \
If not given, the native kernel is used, or plain torch, with a warning, if the kernel was not built. With `native`, a \
worker without the kernel does not start. If a job resumes with different code, it is not bit-identical, and the job \
says so. |

## docker-compose.yml

| variable | meaning |
|---|---|
| `TRAIND_DATABASE_PASSWORD` | Password of the Postgres user; required. |
| `TRAIND_REDIS_PASSWORD` | Password of Redis; required. Letters and digits only, because it is a part of \
`TRAIND_REDIS_URL`. |
| `TRAIND_PORT` | Port of this machine on which the API answers (127.0.0.1 only). Default: 8321. |
| `TRAIND_WORKER_CPUS` | Number of CPUs that a worker's container may use, such as `4` or `1.5`; it also limits the \
worker's threads. Default: 0, no limit. |
| `TRAIND_WORKER_MEMORY_LIMIT` | Memory that a worker's container may use, such as `8g`; the worker takes only jobs \
that fit. Default: 0, no limit. |
| `TRAIND_STOP_GRACE_PERIOD` | How long a worker's container may take to stop; at least ten seconds more than \
`TRAIND_DRAIN_SECONDS`. Default: `2m`. |

docker-compose.yml passes the other variables on this page to api and workers, except those whose values it sets itself:
the servers' URLs, addresses, ports and folders.

libpq's own variables, such as `PGPASSWORD`, `PGPASSFILE` and `PGSSLMODE`, also apply to `TRAIND_DATABASE_URL`, so that
the URL needs no password.
"""


def document() -> str:
    """The page's text."""
    return INTRO + "".join(_row(name, field) for name, field in Settings.model_fields.items()) + OTHERS


def _row(name: str, field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split())
    return f"| `TRAIND_{name.upper()}` | {_type(field.annotation)} | {_default(field)} | {meaning} |\n"


def _type(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is Literal:
        return " or ".join(typing.get_args(annotation))
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return " or ".join(_type(a) for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return "list"
    names = {
        "SecretStr": "secret",
        "str": "text",
        "int": "integer",
        "float": "number",
        "Path": "folder",
        "bool": "bool",
    }
    return names[annotation.__name__]


def _default(field: FieldInfo) -> str:
    return "" if field.default_factory is not None or field.default in (None, ()) else f"`{field.default}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_text(document())


if __name__ == "__main__":
    main()
