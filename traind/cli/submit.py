"""`traind submit`: a spec from a file, from flags, or from both."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traind.cli import documents, output
from traind.cli.connection import DataDir, NoService, connect, plain
from traind.cli.draft import Draft
from traind.cli.errors import Refused
from traind.errors import ApiError, InvalidSpec

if TYPE_CHECKING:
    from traind.client.http import Http

OPTIMIZER = "Optimizer"
TRAINING = "Training"
RESOURCES = "Resources"


def register(app: typer.Typer) -> None:
    app.command()(submit)


def submit(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="File with the spec in YAML or JSON; - reads standard input.")
    ] = None,
    *,
    name: Annotated[str | None, typer.Option(help="Name of the job, as lists of jobs show it.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data set, e.g. digits; `traind datasets` lists them.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model, e.g. mlp; `traind models` lists them.")] = None,
    hidden: Annotated[str | None, typer.Option(help="Sizes of the model's hidden layers, e.g. 128,64.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="Name of the optimizer: sgd or adam.", rich_help_panel=OPTIMIZER)
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=OPTIMIZER)] = None,
    momentum: Annotated[
        float | None, typer.Option(help="Momentum of sgd (default: 0).", rich_help_panel=OPTIMIZER)
    ] = None,
    nesterov: Annotated[
        bool | None,
        typer.Option(help="Use Nesterov momentum with sgd (default: no).", rich_help_panel=OPTIMIZER),
    ] = None,
    betas: Annotated[
        str | None, typer.Option(help="Adam's beta1 and beta2, e.g. 0.9,0.999.", rich_help_panel=OPTIMIZER)
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Weight decay (default: 0).", rich_help_panel=OPTIMIZER)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Name of the schedule: constant, linear, cosine or step.", rich_help_panel=OPTIMIZER),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of passes over the training data.", rich_help_panel=TRAINING)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Number of optimizer updates, instead of --epochs.", rich_help_panel=TRAINING)
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(help='Samples per step, or "full".', rich_help_panel=TRAINING)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of initial weights, batch order and dropout (default: 0).", rich_help_panel=TRAINING),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device to train on: auto, cpu or cuda.", rich_help_panel=RESOURCES)
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="Name of the queue (default: the device's queue).", rich_help_panel=RESOURCES)
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(help="Priority, from -100 to 100; jobs with a higher one start first.", rich_help_panel=RESOURCES),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label of the job; repeat the option for more labels.")
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Set a field of the spec, e.g. training.eval_every=50; VALUE is YAML or JSON.",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Key for safe repeats: the same key with the same spec creates only one job.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the spec and show what the service would train, without submitting."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Watch the job after submitting it; the exit code says its outcome.")
    ] = False,
    output_format: Annotated[
        output.Format, typer.Option("--output", "-o", help="Output format; json is one JSON document.")
    ] = output.Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Submit a training job and print its id. Options override the file.

    \b
    traind submit --dataset digits --model mlp --optimizer adam --lr 1e-3
    traind submit job.yaml --lr 0.01 --label study=rates --watch
    """
    given = locals()
    from traind.client import calls

    if dry_run and watch:
        raise Refused("--watch: with --dry-run no job is made that could be watched")
    draft = _draft(given)
    if dry_run:
        _show(_send(draft, calls.dry_run, data_dir), output_format)
        return
    job = _submit(draft, str(uuid.uuid4()) if idempotency_key is None else idempotency_key, data_dir)
    if watch:
        from traind.cli.watch import watch_jobs

        output.note(f"submitted {job['id']}")
        with connect(data_dir) as client:
            raise typer.Exit(watch_jobs(client, [job["id"]], output_format))
    if output_format is output.Format.JSON:
        output.document(job)
    else:
        output.data(job["id"])


def _draft(given: Mapping[str, Any]) -> Draft:
    """The spec made from the file and the flags. Raises Refused."""
    draft = Draft(documents.read(given["file"]) if given["file"] else None)
    draft.flags(given)
    for text in given["assign"] or ():
        draft.assign(text)
    for text in given["label"] or ():
        draft.label(text)
    for line in draft.notes:
        output.note(f"note: {line}")
    return draft


def _submit(draft: Draft, idempotency_key: str, data_dir: Path | None) -> dict[str, Any]:
    """Submit the spec and return the job. Raises Refused."""
    from traind.client import calls

    try:
        job = _send(draft, partial(calls.submit, idempotency_key=idempotency_key), data_dir)
    except ApiError as e:
        if e.code == "no-answer":
            output.note(f"the job may have been taken; --idempotency-key {idempotency_key} makes a second try safe")
        raise
    if not isinstance(job, dict) or not isinstance(job.get("id"), str):
        raise ApiError("bad-answer", "the service's answer is not a job as this client knows it; is it traind?")
    return job


def _send(draft: Draft, call: Callable[[Http, Any], Any], data_dir: Path | None) -> Any:
    """The service's answer. The service checks the spec; if it cannot be sent, it is checked here. Raises Refused."""
    try:
        with plain(data_dir) as http:
            return call(http, draft.document)
    except ApiError as e:
        if e.code == "invalid-spec":
            raise draft.refused(e.problems) from None
        if e.code == "unreachable":
            draft.check()
        raise
    except (NoService, InvalidSpec):
        draft.check()
        raise


def _show(found: Any, output_format: output.Format) -> None:
    """Print the result of a dry run."""
    if not isinstance(found, dict) or not {"spec", "resolved"} <= found.keys():
        raise ApiError("bad-answer", "the service's answer is not a dry run as this client knows it; is it traind?")
    if output_format is output.Format.JSON:
        output.document(found)
        return
    from traind.cli.jobs import made_of

    output.table(("field", "value"), list(made_of(found["spec"], found["resolved"])))
    if found.get("waiting_for"):
        output.note(f"it would wait: {found['waiting_for']['message']}")
