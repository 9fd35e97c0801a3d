"""`traind doctor` and `traind gc`, for operators. Registered by `local.commands`; what they need they import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from local.options import DataDir, OutputFormat

if TYPE_CHECKING:
    from local.doctor.findings import Finding
    from local.doctor.target import Target

AS_THE_OWNER = "run this as the user that runs `traind up`"


def doctor(data_dir: DataDir = None, output_format: OutputFormat = "table") -> None:
    """Check everything the service depends on; say what is wrong and how to fix it. Exit code 1 if there are errors.

    It checks the servers of TRAIND_DATABASE_URL and TRAIND_REDIS_URL, else those of the service in the data folder.
    """
    from jobs.settings import InvalidSettings
    from local.doctor import examine, target
    from local.doctor.findings import Level, error

    try:
        chosen = target.find(data_dir)
    except InvalidSettings as problem:
        findings = [error("settings", str(problem), "correct the variable; docs/configuration.md lists them")]
    except PermissionError as problem:
        findings = [error("service", _foreign(problem), AS_THE_OWNER)]
    else:
        findings = examine.examine(chosen)
    _show(findings, output_format)
    if any(each.level is Level.ERROR for each in findings):
        raise typer.Exit(1)


def gc(
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, but remove nothing.")
    ] = False,
    output_format: OutputFormat = "table",
) -> None:
    """Remove blobs that nothing will read: uploads of attempts that ended, and blobs that no checkpoint names.

    Workers do the same every minute. Uploads in progress are never removed.
    """
    from sqlalchemy.exc import DBAPIError

    from jobs.garbage import collect, survey
    from jobs.storage import Storage
    from local.doctor import examine, server, target
    from local.doctor.findings import Finding
    from local.errors import DatabaseUnusable, DataDirError

    try:
        chosen = target.find(data_dir)
    except PermissionError as problem:
        raise DataDirError(f"{_foreign(problem)}; {AS_THE_OWNER}") from None
    database = server.engine(_url(chosen))
    if isinstance(database, Finding):
        raise DatabaseUnusable(f"{database.what}; {database.fix}")
    try:
        if dry_run:
            with server.looking(database) as conn:
                found = survey(conn)
            counts = found.n_abandoned + found.n_unnamed, found.abandoned_bytes + found.unnamed_bytes
        else:
            counts = 0, 0
            storage = Storage(database, chosen.settings)
            while (removed := collect(database, room=storage.little_room())).n_blobs:
                counts = counts[0] + removed.n_blobs, counts[1] + removed.n_bytes
    except DBAPIError as problem:
        reason = chosen.without_secrets(examine.reason(problem))
        raise DatabaseUnusable(f"the database: {reason}; `traind doctor` says more") from None
    _tell(counts, dry_run=dry_run, output_format=output_format)


def _foreign(problem: PermissionError) -> str:
    return f"{problem.filename} cannot be read: the service is another user's"


def _url(chosen: Target) -> str:
    from local.errors import LocalError

    if chosen.database_url is None:
        raise LocalError(f"no service runs in {chosen.data_dir}: start it (`traind up`), or set TRAIND_DATABASE_URL")
    return chosen.database_url


def _tell(counts: tuple[int, int], *, dry_run: bool, output_format: OutputFormat) -> None:
    from local.doctor.findings import bytes_text
    from traind.cli import output

    n_blobs, n_bytes = counts
    if output_format == "json":
        output.document({"n_blobs": n_blobs, "n_bytes": n_bytes, "dry_run": dry_run})
    else:
        output.data(f"{n_blobs} blobs, {bytes_text(n_bytes)}{' would be' if dry_run else ''} removed")


def _show(findings: list[Finding], output_format: OutputFormat) -> None:
    from traind.cli import output

    if output_format == "json":
        output.document([each.document() for each in findings])
    else:
        rows = [(each.level.value, each.check, each.what, each.fix) for each in findings]
        output.wrapped_table(("level", "check", "finding", "what to do"), rows)
