"""Workers, stuck jobs and garbage: what the tables tell. Only where the schema is this code's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from jobs.catalog.memory import gigabytes
from jobs.garbage import Garbage, survey
from jobs.queries import WorkerRow, WorkerState, list_workers
from jobs.queries.trouble import (
    Overdue,
    TooLarge,
    Unread,
    Waiting,
    largest_checkpoint_bytes,
    overdue,
    too_large,
    unread,
    unserved,
)
from local.doctor.findings import Finding, bytes_text, error, ok, some, warning
from local.doctor.server import looking

NO_GARBAGE = Garbage(0, 0, 0, 0)


@dataclass(frozen=True)
class Fleet:
    """The tables at one moment; the workers that have not stopped."""

    workers: tuple[WorkerRow, ...] = ()
    overdue: tuple[Overdue, ...] = ()
    unserved: tuple[Waiting, ...] = ()
    too_large: tuple[TooLarge, ...] = ()
    unread: tuple[Unread, ...] = ()
    garbage: Garbage = NO_GARBAGE
    largest_checkpoint_bytes: int = 0

    @property
    def live(self) -> list[WorkerRow]:
        return [worker for worker in self.workers if worker.state is WorkerState.LIVE]


def look(database: Engine) -> Fleet:
    """Raises DBAPIError."""
    with looking(database) as conn:
        workers = list_workers(conn, None)
        return Fleet(
            workers=tuple(workers),
            overdue=tuple(overdue(conn)),
            unserved=tuple(unserved(conn, workers)),
            too_large=tuple(too_large(conn, workers)),
            unread=tuple(unread(conn, workers)),
            garbage=survey(conn),
            largest_checkpoint_bytes=largest_checkpoint_bytes(conn),
        )


def judge(fleet: Fleet) -> Iterator[Finding]:
    yield from _workers(fleet)
    yield from _jobs(fleet.overdue, fleet.unserved, fleet.too_large, fleet.unread)
    yield _garbage(fleet.garbage)


def _workers(fleet: Fleet) -> Iterator[Finding]:
    busy = sum(1 for worker in fleet.live if worker.busy)
    if fleet.live:
        yield ok("workers", f"{len(fleet.live)} live, {busy} of them at work{_lacking(fleet.live)}")
    else:
        yield warning("workers", "no worker is live: jobs wait", "start one: `traind up`, or `traind worker`")
    for worker in fleet.workers:
        if worker.state is WorkerState.ILL:
            fix = "mend that machine; the worker then goes on by itself"
            yield error("workers", f"{worker.name} ({worker.id}) is ill and takes no job: {worker.trouble}", fix)
        if worker.state is WorkerState.SILENT:
            holds = f" and holds {some([str(job.id) for job in worker.jobs])}" if worker.jobs else ""
            what = f"{worker.name} ({worker.id}) was last seen {worker.seen_seconds:,.0f} s ago{holds}"
            fix = "see whether it and its machine run; its job goes on elsewhere when its lease ends"
            yield warning("workers", what, fix)


def _lacking(workers: Sequence[WorkerRow]) -> str:
    """Which of them cannot read which data; no fault as long as others take the jobs."""
    lacks = [f"{worker.name} without {', '.join(sorted(worker.lacks))}" for worker in workers if worker.lacks]
    return f" ({some(lacks)})" if lacks else ""


def _jobs(
    late: Sequence[Overdue], waiting: Sequence[Waiting], large: Sequence[TooLarge], unread: Sequence[Unread]
) -> Iterator[Finding]:
    if late:
        names = some([str(each.id) for each in late])
        what = f"{len(late)} running without a lease for up to {late[0].seconds:,.0f} s, and nobody takes over: {names}"
        yield error("jobs", what, "start a worker, any will do: it puts them back (`traind worker`)")
    for each in waiting:
        what = (
            f"{each.n_jobs} waiting in queue {each.queue!r} for device {each.device!r}, which no live worker serves;"
            f" the oldest was submitted {each.oldest_seconds:,.0f} s ago"
        )
        device = " --device cuda" if each.device == "cuda" else ""
        yield warning("jobs", what, f"start one: traind worker --queues {each.queue}{device}; or cancel the jobs")
    for big in large:
        what = (
            f"{big.n_jobs} waiting in queue {big.queue!r} that need up to {gigabytes(big.needed_bytes)} of memory; the"
            f" largest live worker there has {gigabytes(big.largest_bytes)}"
        )
        yield warning("jobs", what, "start a worker with more memory, or give one a larger TRAIND_WORKER_MEMORY_BYTES")
    for lack in unread:
        what = f"{lack.n_jobs} waiting in queue {lack.queue!r} of {lack.dataset}, which no live worker there can read"
        yield warning("jobs", what, lack.why)
    if not late and not waiting and not large and not unread:
        yield ok("jobs", "none is stuck")


def _garbage(found: Garbage) -> Finding:
    if not found:
        return ok("blobs", "no orphans")
    parts = (
        (found.n_abandoned, found.abandoned_bytes, "of uploads whose attempt ended"),
        (found.n_unnamed, found.unnamed_bytes, "that no checkpoint names"),
    )
    what = "; ".join(f"{n} {kind} ({bytes_text(size)})" for n, size, kind in parts if n)
    return warning("blobs", f"orphans: {what}", "`traind gc` removes them; a live worker does, within minutes")
