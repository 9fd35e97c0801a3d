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

The API is JSON over HTTP under `/v1`. A running service serves the complete contract, with schemas and examples, at
`/openapi.json`. Every request except `/`, `/livez`, `/readyz` and `/openapi.json` needs `Authorization: Bearer td_...`.
A key belongs to one project and cannot see anything of other projects.

- **Submit safely.** Send an `Idempotency-Key`: if a job with the same key and spec already exists, the answer is that
  job (`Idempotent-Replayed: true`), so a submit can be repeated after a lost answer. The Python client and the CLI do
  this automatically.
- **Try first.** With `dry_run=true` a submit checks the spec as usual but creates no job. It answers 200 with the spec
  and its defaults, what the service worked out (`resolved`: parameters, steps, memory) and what the job would wait for.
- **Poll cheaply.** A job's `ETag` is its version. With `If-None-Match` the answer is 304 if nothing changed, and such a
  poll writes no line to the service's log.
- **Times** are UTC (RFC 3339 with `Z`), whatever the time zone of the service or its database. The CLI shows local
  times.
- **Who.** `created_by` of a job or a check is the id and the name of the API key that requested it. An event caused by
  a request has the key's id in `data.key_id`, and the request's line in the service's log has it, too.
- **Curves.** `metrics` answers at most `max_points` buckets per key, each with first, last, min, max, mean, count and
  nan_count. Numbers that are not finite are sent as `null`, and `nonfinite` lists them. `attempts=all` also returns the
  points of steps that a later attempt repeated.
- **Weights.** A checkpoint's `content` is a streamed safetensors file, with `Range` and an `ETag` that is its SHA-256.
  `part=model` has the weights under torch's names, `part=state` everything else that a resume needs.
- **Proof.** `verify` replays a job up to a checkpoint, from the checkpoint before it (or from the job's start), and
  says whether every bit is the same, or which tensor differs. `audit` runs a job's first steps with optim_core and with
  torch.optim and reports the difference. Each answers 202 with a *check*, which a worker runs like a job; poll it until
  it has ended. `result.equal` is the verdict. If `exact` is false, the worker's bits may differ from those of the
  machine that trained (see `reasons`), and a difference does not prove damage.
- **Verbs.** Repeating `cancel`, `pause`, `resume` or `retry` gives the same answer and changes nothing while the job is
  in a state that the verb leads to: cancelling or cancelled, pausing or paused, and for `resume` and `retry` queued or
  running. After that it is a new request; therefore the Python client and the CLI do not repeat a `resume` or `retry`
  if its answer was lost. If the job's state forbids a verb, the answer is 409 with the `state` and the `possible`
  verbs. `progress.step` is the newest step observed, `progress.saved_step` the step that the job goes back to after a
  crash. A running job becomes `paused` once its checkpoint is complete; then the two are equal, unless the time to save
  ran out or the attempt crashed.
- **States.** A job is `cancelling` or `pausing` if it is running and that was requested. `diverged` is an outcome:
  `error` names the step and the tensor. See [job-states.md](job-states.md); specs are described in [spec.md](spec.md).

## Requests
"""

ERRORS = """
## Errors

Errors are problem documents (RFC 9457) with a stable `code` and a `request_id` that is also in the service's log. For
an invalid spec, `errors` has the JSON pointer of each bad field:

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
    """Settings with dummy servers: an app connects only at the first request."""
    return Settings(database_url=SecretStr("postgresql://nowhere/none"), redis_url=SecretStr("redis://nowhere"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_text(document())


if __name__ == "__main__":
    main()
