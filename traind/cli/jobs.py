"""`traind get` and `events`. Commands that change a job are in `traind.cli.verbs`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traind.cli import output
from traind.cli.connection import DataDir, JobArgument, connect, job_id
from traind.cli.job_table import early_stop, last_value
from traind.cli.output import Format, duration, number, when

if TYPE_CHECKING:
    from traind.client import Job

FormatOption = Annotated[Format, typer.Option("--output", "-o", help="Output format; json is one JSON document.")]


def register(app: typer.Typer) -> None:
    app.command()(get)
    app.command()(events)


def get(job: JobArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """Show a job: its state, its progress and its whole spec."""
    with connect(data_dir) as client:
        found = client.get(job_id(client, job))
    if output_format is Format.JSON:
        output.document(found.document())
    else:
        output.table(("field", "value"), list(_details(found)))


def events(
    job: JobArgument,
    *,
    after: Annotated[int | None, typer.Option(help="Show only events after the event with this id.")] = None,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Show what happened to a job, oldest first."""
    with connect(data_dir) as client:
        found = list(client.events(job_id(client, job), after=after))
    if output_format is Format.JSON:
        output.document([event.document() for event in found])
        return
    rows = [
        (e.id, when(e.created_at), e.kind, _move(e.from_state, e.to_state), e.attempt, _compact(e.data)) for e in found
    ]
    output.table(("id", "time", "event", "state", "attempt", "data"), rows, right=(0, 4), cut=(5,))


def _details(job: Job) -> Iterator[tuple[str, object]]:
    progress, document = job.progress, job.document()
    yield "id", job.id
    yield "name", job.name
    yield "labels", " ".join(f"{key}={value}" for key, value in job.labels.items())
    yield "state", job.state
    if job.waiting_for is not None:
        yield "waits", job.waiting_for.message
    if progress.no_room is not None:
        yield "not saved", progress.no_room
    if job.stopped_early:
        yield "stopped early", early_stop(document)
    if job.error is not None:
        yield "error", f"{job.error.code}: {job.error.message}"
    yield "attempt", f"{job.attempt} ({job.crash_count} of at most {job.max_attempts} crashed)"
    if not job.resume_exact:
        yield "resume", f"not exact: {'; '.join(job.resume_differences)}"
    yield "step", f"{progress.step} of {progress.total_steps}, {_saved(progress.saved_step)}"
    if progress.rate_steps_per_second is not None:
        yield "rate", f"{number(progress.rate_steps_per_second)} steps/s"
    if job.finished_at is None:
        yield "time left", duration(progress.eta_seconds)
    yield from ((f"last {key}", last_value(document, key)) for key in sorted(job.metrics.last))
    for key, best in sorted(job.metrics.best.items()):
        yield f"best {key}", f"{number(best.value)} at step {best.step}"
    if job.created_by is not None:
        yield "created by", f"{job.created_by.name} (key {job.created_by.key_id})"
    for name in ("created_at", "started_at", "finished_at"):
        yield name.removesuffix("_at"), when(getattr(job, name))
    yield from made_of(job.spec, job.resolved)


def made_of(spec: Mapping[str, Any], resolved: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """A spec part by part, and what the service worked out from it."""
    for part in ("dataset", "model", "optimizer", "schedule", "training", "resources"):
        yield part, _compact(spec.get(part, {}))
    yield "resolved", _compact({key: value for key, value in resolved.items() if key != "model"})
    yield "layers", _layers(resolved.get("model"))


def _layers(model: Mapping[str, Any] | None) -> str:
    """The call of torch.nn that builds the layer."""
    if model is None:
        return ""
    calls = ((layer["module"], layer["arguments"].items()) for layer in model["layers"])
    return "  ".join(f"{module}({', '.join(f'{key}={value}' for key, value in given)})" for module, given in calls)


def _saved(step: int | None) -> str:
    return "nothing saved" if step is None else f"saved at {step}"


def _move(source: str | None, target: str | None) -> str:
    return f"{source or ''} -> {target}" if target else ""


def _compact(value: Mapping[str, Any]) -> str:
    return "  ".join(f"{key}={_value(item)}" for key, item in value.items() if item is not None)


def _value(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item)
