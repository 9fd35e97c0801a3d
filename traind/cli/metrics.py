"""`traind metrics`: the curves of a job, as a table with sparklines, as charts, or as data."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from traind.cli import output
from traind.cli.connection import DataDir, JobArgument, connect, job_id
from traind.cli.output import number
from traind.cli.plots import chart, sparkline

if TYPE_CHECKING:
    from traind.client import Metrics, Series
    from traind.client.answers import Column

CURVE_CELLS = 32
CHART_CELLS = 60
COLUMNS: tuple[Column, ...] = ("first", "last", "min", "max", "mean")


class MetricFormat(StrEnum):
    TABLE = "table"
    PLOT = "plot"
    CSV = "csv"
    JSON = "json"


def register(app: typer.Typer) -> None:
    app.command()(metrics)


def metrics(
    job: JobArgument,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Metrics to show, e.g. val/accuracy (default: all).")
    ] = None,
    *,
    step_from: Annotated[int | None, typer.Option("--from", help="First step to show.")] = None,
    step_to: Annotated[int | None, typer.Option("--to", help="Last step to show.")] = None,
    max_points: Annotated[
        int | None, typer.Option(min=1, help="Number of buckets per metric; each shows its minimum and maximum.")
    ] = None,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Include points of steps that a later attempt repeated.")
    ] = False,
    output_format: Annotated[
        MetricFormat,
        typer.Option(
            "--output", "-o", help="Output format; plot draws a chart per metric, csv and json give all buckets."
        ),
    ] = MetricFormat.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Show a job's metrics."""
    drawn = {MetricFormat.TABLE: CURVE_CELLS, MetricFormat.PLOT: CHART_CELLS}.get(output_format)
    with connect(data_dir) as client:
        found = client.metrics(
            job_id(client, job),
            keys=keys or (),
            step_from=step_from,
            step_to=step_to,
            max_points=max_points or drawn,
            attempts="all" if all_attempts else None,
        )
    _show(found, output_format)


def _show(found: Metrics, output_format: MetricFormat) -> None:
    if output_format is MetricFormat.JSON:
        output.document(found.document())
    elif output_format is MetricFormat.CSV:
        output.data(_csv(found).rstrip("\n"))
    elif output_format is MetricFormat.PLOT:
        for series in found.series:
            if series.count:
                output.data("\n".join(_plot(series)) + "\n")
    else:
        rows = [_row(series) for series in found.series if series.count]
        headers = ("metric", "points", "steps", "first", "last", "min", "max", "curve")
        output.table(headers, rows, right=(1, 2, 3, 4, 5, 6), spare=(1, 2), cut=(0,))


def _row(series: Series) -> tuple[object, ...]:
    buckets = series.buckets
    first, last, low, high = (series.values(column) for column in ("first", "last", "min", "max"))
    steps = f"{buckets.step0[0]}-{buckets.step1[-1]}"
    extremes = min(_finite(low), default=None), max(_finite(high), default=None)
    shown = map(number, (first[0], last[-1], *extremes))
    return (series.key, series.count, steps, *shown, sparkline(series.values("mean")))


def _plot(series: Series) -> Iterator[str]:
    """A chart through first, min, max and last of every bucket, so that no spike is smoothed away."""
    columns = [series.values(name) for name in ("first", "min", "max", "last")]
    ends = zip(series.buckets.step0, series.buckets.step1, strict=True)
    steps = [step for a, b in ends for step in (a, (a + b) // 2, (a + b) // 2, b)]
    values = [value for bucket in zip(*columns, strict=True) for value in bucket]
    yield f"{series.key}  last {number(columns[-1][-1])}"
    yield from chart(steps, values, width=CHART_CELLS)
    strange = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
    if strange:
        yield f"not finite from step {strange[0]}"


def _csv(found: Metrics) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("key", "step0", "step1", "count", "nan_count", *COLUMNS))
    for series in found.series:
        b = series.buckets
        columns = (b.step0, b.step1, b.count, b.nan_count, *(series.values(name) for name in COLUMNS))
        writer.writerows((series.key, *row) for row in zip(*columns, strict=True))
    return text.getvalue()


def _finite(values: list[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
