"""All checks, in order. One that cannot go on is an error of its own and does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from jobs.environment import unread_variables
from local import listener
from local.disk import Ballast, max_wal_mb
from local.doctor import disks, doorbell, fleet, machine, server
from local.doctor.findings import Finding, Level, error, ok, warning
from local.doctor.fleet import Fleet
from local.doctor.target import Target

DECISIVE = ("migrations", "privileges")
"""Checks without which the tables cannot be looked at."""


def examine(target: Target, *, now: Callable[[], float] = time.time) -> list[Finding]:
    """What there is to say about everything, without any secret. `now` is this machine's clock."""
    found = list(_everything(target, now))
    hidden = target.without_secrets
    return [replace(each, what=hidden(each.what), fix=each.fix and hidden(each.fix)) for each in found]


def _everything(target: Target, now: Callable[[], float]) -> Iterator[Finding]:
    for line in unread_variables():
        yield warning("settings", line, "correct its name, or unset it")
    yield from _service(target)
    database = _database(target)
    seen: Fleet | None = None
    if isinstance(database, Finding):
        yield database
    elif database is not None:
        yield from (found := _server(database, target, now))
        if all(each.level is Level.OK for each in found if each.check in DECISIVE):
            looked = _fleet(database)
            seen = looked if isinstance(looked, Fleet) else None
            yield from [looked] if isinstance(looked, Finding) else _capacity(database, looked)
            yield from _tried("storage", lambda: [disks.storage(database, target.settings)])
    if target.redis_url is not None:
        yield from doorbell.look(target.redis_url, embedded=target.redis_embedded)
    yield from _machine(target, seen or Fleet())
    if seen is not None:
        yield from fleet.judge(seen)


def _service(target: Target) -> Iterator[Finding]:
    servers = ("Postgres", target.database_embedded), ("Redis", target.redis_embedded)
    embedded = [name for name, is_it in servers if is_it]
    if target.info is not None:
        url = target.info.url
        if listener.answers(url, "/readyz"):
            yield ok("service", f"runs at {url} (process {target.info.pid})")
        else:
            fix = f"look into {target.data_dir / 'logs' / 'api.log'}; `traind down` and `traind up` start it again"
            yield error(
                "service", f"process {target.info.pid} runs, but {url}/readyz does not say that it is ready", fix
            )
    elif embedded:
        what = f"no service runs in {target.data_dir}, so its {' and '.join(embedded)} are not looked at"
        yield error("service", what, "start it: `traind up`; or set TRAIND_DATABASE_URL and TRAIND_REDIS_URL")
    if target.info is not None and target.database_embedded and target.database_url is None:
        what = f"the service in {target.data_dir} uses a database of other settings than these"
        yield warning("service", what, "set TRAIND_DATABASE_URL and TRAIND_REDIS_URL as they were for `traind up`")


def _database(target: Target) -> Engine | Finding | None:
    """An engine on a database that answers, or why there is none; None where none is to be looked at."""
    if target.database_url is None:
        return None
    database = server.engine(target.database_url)
    if isinstance(database, Finding):
        return database
    try:
        with database.connect():
            return database
    except DBAPIError as problem:
        return server.unreachable(reason(problem), embedded=target.database_embedded)


def _server(database: Engine, target: Target, now: Callable[[], float]) -> list[Finding]:
    embedded, lease_seconds = target.database_embedded, target.settings.lease_seconds
    wal_mb = max_wal_mb(target.data_dir) if embedded else None
    found = [
        *_tried("database", lambda: server.reachable(database)),
        *_tried("pooler", lambda: server.pooler(database)),
        *_tried("durability", lambda: server.durability(database, embedded_wal_mb=wal_mb)),
        *_tried("clock", lambda: [machine.clock(database, lease_seconds=lease_seconds, now=now)]),
        *_tried("migrations", lambda: [server.migrations(database, embedded=embedded)]),
    ]
    if found[-1].level is Level.OK:
        found += _tried("privileges", lambda: [server.privileges(database)])
    return found


def _fleet(database: Engine) -> Fleet | Finding:
    try:
        return fleet.look(database)
    except DBAPIError as problem:
        return _broke_off("workers", problem)


def _capacity(database: Engine, seen: Fleet) -> Iterator[Finding]:
    return _tried("connections", lambda: [server.capacity(database, n_workers=len(seen.live))])


def _machine(target: Target, seen: Fleet) -> Iterator[Finding]:
    settings = target.settings
    yield from machine.versions(machine.installed(), [(worker.name, worker.versions) for worker in seen.live])
    found = machine.probe()
    wanted = settings.worker_device == "cuda" or "cuda" in settings.worker_queues
    yield machine.kernel(found, needed=wanted or target.info is not None)
    if found.problem is None:
        yield machine.gpu(found, wanted=wanted, driver=machine.driver())
    local = target.data_dir.exists() and (target.database_embedded or target.redis_embedded)
    places = disks.places(
        target.scratch_dir,
        target.data_dir if local else None,
        target.data_dir / "postgres" if local and target.database_embedded else None,
        largest=seen.largest_checkpoint_bytes,
        wal=max_wal_mb(target.data_dir) * 1_000_000 if local else 0,
    )
    yield from (disks.disk(place) for place in places)
    if target.database_embedded and target.database_url is not None:
        yield disks.reserve(Ballast(target.data_dir / "postgres", floor=settings.min_free_disk_bytes))


def _tried(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except DBAPIError as problem:
        yield _broke_off(check, problem)


def _broke_off(check: str, problem: DBAPIError) -> Finding:
    return error(check, f"the check could not be finished: {reason(problem)}", "see the database's log; try again")


def reason(problem: DBAPIError) -> str:
    """The server's or the driver's own words, on one line."""
    lines = [line.strip() for line in str(problem.orig).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(problem.orig).__name__
