"""Writes docs/api.md from the api's own routes and error codes: `python -m api.reference docs/api.md`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from api.app import create_app
from api.errors import KINDS
from jobs.settings import Settings

INTRO = """\
# The API

<!-- Written by `python -m api.reference docs/api.md`; a test compares. Change the api instead. -->

JSON over HTTP under `/v1`; the whole contract with schemas and examples is `/openapi.json` of a running service. Every
request but `/`, `/livez`, `/readyz` and `/openapi.json` needs `Authorization: Bearer td_...`. A key belongs to one
project: what other projects have does not exist for it.

- **Submit safely.** Send an `Idempotency-Key`: the same key with the same spec answers with the job that is there
  already (`Idempotent-Replayed: true`), so a lost answer can be repeated. The Python client and the CLI do it by
  themselves.
- **Try first.** With `dry_run=true` a submit judges the spec as usual and makes no job: it answers 200 with the spec
  and its defaults, what the service worked out (`resolved`: parameters, steps, memory) and what it would wait for.
- **Poll cheaply.** A job's `ETag` is its version; `If-None-Match` answers 304 if nothing changed, and such a
  poll leaves no line in the service's log.
- **Times** are UTC (RFC 3339 with `Z`), whatever time zone the service or its database has. The CLI shows local ones.
- **Who.** `created_by` of a job or a check is the id and the name of the API key that asked for it; an event that a
  request made has the id as `data.key_id`, and so has the request's line in the service's log.
- **Curves.** `metrics` answers at most `max_points` buckets per key, each with first, last, min, max, mean, count and
  nan_count. Numbers that are not finite travel as `null`, and `nonfinite` says which. `attempts=all` also shows
  what a later attempt trained again.
- **Weights.** A checkpoint's `content` is a safetensors file, streamed, with `Range` and an `ETag` that is its SHA-256.
  `part=model` has the weights under torch's names, `part=state` what a resume needs besides.
- **Proof.** `verify` replays a job from the checkpoint before a checkpoint (else from its start) to it and says whether
  every bit is the same, or which tensor is not; `audit` runs a job's first steps by optim_core and by torch.optim and
  says how far apart they are. Each answers 202 with a *check*, which runs on a worker as a job does; poll it until it
  has ended. `result.equal` is the verdict. Where `exact` is false, the worker's bits may differ from those of the
  machine that trained (`reasons`), and a difference proves no damage.
- **Verbs.** A repeat of `cancel`, `pause`, `resume` or `retry` answers the same and changes nothing while the job is as
  the verb left it: cancelling or cancelled, pausing or paused, after `resume` and `retry` queued or running. Later it
  is a new request, so the Python client and the CLI do not repeat a `resume` or `retry` whose answer was lost. Where
  the job's state forbids a verb, the answer is 409 with the `state` and what is `possible`. `progress.step` is the
  newest step observed, `progress.saved_step` the one that a crash goes back to. A job that runs is `paused` once its
  checkpoint is complete: then they are the same, unless its time to save was over or its attempt had crashed.
- **States.** `cancelling` and `pausing` are a running job of which that was asked. `diverged` is an outcome: `error`
  says at which step and in which tensor. See [job-states.md](job-states.md); specs are in [spec.md](spec.md).

## Requests
"""

ERRORS = """
## Errors

Problem documents (RFC 9457) with a stable `code`, a `request_id` that is also in the service's log, and for a bad spec
`errors` with the JSON pointer of each field:

```json
{"type": "urn:traind:problem:invalid-spec", "title": "The job cannot run", "status": 422, "code": "invalid-spec",
 "detail": "...", "pointer": "/optimizer/nesterov", "request_id": "...",
 "errors": [{"pointer": "/optimizer/nesterov", "code": "rule",
             "message": "Nesterov momentum requires a momentum and zero dampening"}]}
```

| code | status | meaning |
|---|---|---|
"""


def document() -> str:
    """The page's text."""
    paths: dict[str, dict[str, Any]] = create_app(_settings()).openapi()["paths"]
    lines = ["| request | operation | |", "|---|---|---|"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            lines.append(f"| `{method.upper()} {path}` | `{operation['operationId']}` | {operation['summary']} |")
    codes = "".join(f"| `{code}` | {kind.status} | {kind.title} |\n" for code, kind in KINDS.items())
    return INTRO + "\n" + "\n".join(lines) + "\n" + ERRORS + codes


def _settings() -> Settings:
    """Servers that nothing is asked of: an app connects when the first request comes."""
    return Settings(database_url=SecretStr("postgresql://nowhere/none"), redis_url=SecretStr("redis://nowhere"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_text(document())


if __name__ == "__main__":
    main()
