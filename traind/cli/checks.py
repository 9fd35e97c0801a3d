"""`traind verify`, `traind audit` and `traind checks`: replays of a job, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from traind.cli import output
from traind.cli.checkpoints import choose
from traind.cli.connection import DataDir, JobArgument, connect, job_id, silence
from traind.cli.errors import CANCELLED, FAILED, INTERRUPTED, OK, CliError, Refused
from traind.cli.jobs import FormatOption
from traind.cli.output import Format, number, when
from traind.errors import ApiError

if TYPE_CHECKING:
    from rich.progress import Progress

    from traind.client import AuditResult, Check, Client, VerifyResult

HEADERS = ("id", "kind", "state", "checkpoint", "from step", "to step", "result", "created")
DIFFERENCES = ("tensor", "different", "of", "first at", "stored", "replayed", "largest difference")
DISTANCES = ("tensor", "different", "of", "largest ulp", "largest difference")
WORDS = {"missing": "is missing", "unexpected": "should not be there", "kind": "has another shape or type"}

NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the check's id and do not wait for the result.")]


class UnknownCheckpoint(CliError):
    """There is no such checkpoint in this project."""

    code = "unknown-checkpoint"


def register(app: typer.Typer) -> None:
    app.command()(verify)
    app.command()(audit)
    app.command()(checks)


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|JOB", help="Number of a checkpoint, or id of a job (its newest checkpoint)."
        ),
    ],
    *,
    step: Annotated[
        int | None, typer.Option(help="If a job is given: step of the checkpoint to verify (default: the newest).")
    ] = None,
    no_wait: NoWait = False,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Verify a checkpoint: replay from the one before it, or from the start, and compare every bit.

    Exit code 0 if all bits are equal, 1 if they are not or the check failed, 4 if it was cancelled.
    """
    with connect(data_dir) as client:
        checkpoint_id = _checkpoint(client, target, step)
        try:
            check = client.verify(checkpoint_id)
        except ApiError as e:
            if e.status != 404:
                raise
            raise UnknownCheckpoint(str(e), "`traind checkpoints JOB` lists those of a job") from None
        raise typer.Exit(_follow(client, check, no_wait=no_wait, output_format=output_format, verdict=_is_equal))


def audit(
    job: JobArgument,
    *,
    steps: Annotated[
        int | None, typer.Option(help="Number of steps to audit (default: 100, or all if the job has fewer).")
    ] = None,
    max_ulp: Annotated[
        int | None,
        typer.Option(min=0, help="Exit with 1 if a tensor differs by more than this many units in the last place."),
    ] = None,
    no_wait: NoWait = False,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Replay a job's first steps with optim_core and with torch.optim, and show by how much each tensor differs.

    Differences of a few units in the last place come from rounding, and carry over to later steps. Exit code 1 if the
    check failed or, with --max-ulp, if a tensor differs by more; 0 otherwise.
    """

    def near_enough(check: Check) -> bool:
        largest = None if check.result is None else getattr(check.result, "largest_ulp", None)
        return max_ulp is None or _is_equal(check) or (largest is not None and largest <= max_ulp)

    with connect(data_dir) as client:
        check = client.audit(job_id(client, job), steps=steps)
        raise typer.Exit(_follow(client, check, no_wait=no_wait, output_format=output_format, verdict=near_enough))


def checks(job: JobArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """List a job's checks, newest first."""
    with connect(data_dir) as client:
        found = client.checks(job_id(client, job))
    if output_format is Format.JSON:
        output.document([check.document() for check in found])
    else:
        check_table(found)


def check_table(found: Sequence[Check]) -> None:
    """Print the checks as a table on stdout, one line per check."""
    rows = [
        (c.id, c.kind, c.state, c.checkpoint_id, c.from_step, c.to_step, _outcome(c), when(c.created_at)) for c in found
    ]
    output.table(HEADERS, rows, right=(3, 4, 5), spare=(7, 4, 5, 3))


def _checkpoint(client: Client, target: str, step: int | None) -> int:
    """The number of the checkpoint that `target` names. Only ids of jobs begin with a zero."""
    if target.isascii() and target.isdigit() and not target.startswith("0"):
        if step is not None:
            raise Refused("--step chooses among a job's checkpoints; give the job, or the checkpoint's number alone")
        return int(target)
    return choose(client.checkpoints(job_id(client, target)), step).id


def _follow(
    client: Client, check: Check, *, no_wait: bool, output_format: Format, verdict: Callable[[Check], bool]
) -> int:
    """Wait for the check, print it, and return the exit code."""
    if no_wait:
        if output_format is Format.JSON:
            output.document(check.document())
        else:
            output.data(check.id)
        return OK
    try:
        check = _wait(client, check)
    except KeyboardInterrupt:
        output.note(
            f"the check {check.id} goes on; `traind checks {check.job_id}` shows what it found, "
            f"`traind cancel {check.id}` ends it"
        )
        return INTERRUPTED
    if check.error is not None:
        output.note(f"{check.state}: {check.error.message} ({check.error.code})")
    if output_format is Format.JSON:
        output.document(check.document())
    else:
        _show(check)
    if check.state == "cancelled":
        return CANCELLED
    return OK if check.state == "succeeded" and verdict(check) else FAILED


def _wait(client: Client, check: Check) -> Check:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = output.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        return client.wait_check(check.id, _report(progress), on_silence=silence(client))


def _report(progress: Progress) -> Callable[[Check], None]:
    """Shows a progress bar on a terminal; elsewhere prints a line at each new state."""
    task, said = progress.add_task("", total=None), ""

    def update(check: Check) -> None:
        nonlocal said
        now = check.phase if check.state == "running" and check.phase else check.state
        progress.update(task, description=now, completed=check.steps_done, total=check.steps_total)
        if progress.disable and now != said:
            output.note(f"{check.kind} {check.id}  {now}  step {check.steps_done:,}/{check.steps_total:,}")
        said = now

    return update


def _is_equal(check: Check) -> bool:
    return check.result is not None and check.result.equal


def _outcome(check: Check) -> str:
    if check.result is not None:
        return "equal" if check.result.equal else "differs"
    return check.error.code if check.error is not None else ""


def _show(check: Check) -> None:
    if check.result is None:
        return
    if check.result.kind == "verify":
        _show_verified(check, check.result)
    else:
        _show_audited(check.result)


def _show_verified(check: Check, result: VerifyResult) -> None:
    start = f"step {check.from_step:,}" if check.from_checkpoint_id else "the start"
    what = f"checkpoint {check.checkpoint_id} (step {check.to_step:,})"
    if result.equal:
        _say(f"{what} equals the replay from {start}: {result.n_tensors} tensors, every bit")
    else:
        _say(f"{what} differs from the replay from {start}: {_extent(result)}")
        for line in _findings(result):
            _say(f"  {line}")
    if not result.exact:
        _say("the replay ran in a different environment, so a difference does not prove damage:")
        for reason in result.reasons:
            _say(f"  {reason}")
    rows = [
        (d.tensor, d.n_different, d.n_elements, list(d.first_index or ()), d.stored, d.replayed, d.largest_difference)
        for d in result.differences
        if d.problem == "values"
    ]
    if rows:
        output.table(DIFFERENCES, [tuple(map(_cell, row)) for row in rows], right=(1, 2), spare=(3,), cut=(0,))


def _extent(result: VerifyResult) -> str:
    """A short text that says what differs."""
    return f"{result.n_different} of {result.n_tensors} tensors" + (
        f", the first is {result.differences[0].tensor}" if result.differences else ""
    )


def _findings(result: VerifyResult) -> Iterator[str]:
    """A line for each difference that is not a tensor with different values."""
    yield from (
        f"the SHA-256 of the file {part} differs from the stored one"
        for part, good in result.intact.items()
        if not good
    )
    yield from (f"the file {part} cannot be read: {why}" for part, why in result.unreadable.items())
    if result.ended is not None:
        yield f"the replay did not come so far: {result.ended}"
    for found in result.differences:
        if found.problem in WORDS:
            yield f"{found.tensor} {WORDS[found.problem]}"
    yield from result.rest


def _cell(value: object) -> object:
    return number(value) if isinstance(value, float) else value


def _show_audited(result: AuditResult) -> None:
    beside = f"optim_core ({result.optimizer}) and torch.optim {result.torch}"
    for name, why in result.ended.items():
        if why is not None:
            _say(f"{name}: {why}")
    if result.equal:
        _say(f"{beside} are equal after {result.steps:,} steps: {result.n_tensors} tensors, every bit")
        return
    if not result.tensors:
        _say(f"{beside} ended at different steps and are not compared")
        return
    first = f", for the first time in step {result.first_different_step:,}" if result.first_different_step else ""
    apart = "NaN beside a number" if result.largest_ulp is None else f"at most {result.largest_ulp:,} ulp apart"
    _say(f"{beside} after {result.steps:,} steps: {apart}; {result.n_different} of {result.n_tensors} tensors{first}")
    rows = [(t.tensor, t.n_different, t.n_elements, t.largest_ulp, t.largest_difference) for t in result.tensors]
    output.table(DISTANCES, [tuple(map(_cell, row)) for row in rows], right=(1, 2, 3, 4), cut=(0,))


def _say(text: str) -> None:
    output.data(output.printable(text))
