"""The database that an operator's command works on: that of TRAIND_DATABASE_URL, or that of a running `traind up`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection


@contextmanager
def transaction(data_dir: Path | None) -> Iterator[Connection]:
    """A transaction on that database; a ValueError or a NotFound inside becomes a LocalError with the same words."""
    from sqlalchemy.exc import DBAPIError

    from jobs.database import make_engine
    from jobs.errors import NotFound
    from local.doctor import target
    from local.errors import DatabaseUnusable, DataDirError, LocalError

    try:
        chosen = target.find(data_dir)
    except PermissionError as problem:
        raise DataDirError(
            f"{problem.filename} cannot be read: the service is another user's; run this as the user that runs it"
        ) from None
    if chosen.database_url is None:
        raise LocalError(
            f"no service runs in {chosen.data_dir}: start it (`traind up`), name its folder with --data-dir, or set"
            " TRAIND_DATABASE_URL. The service's own key is in its data folder, in the file api-key"
        )
    try:
        engine = make_engine(chosen.database_url, application_name="traind-keys", pool_size=0)
    except ValueError as error:
        raise DatabaseUnusable(f"the database: {chosen.without_secrets(str(error))}") from None
    try:
        with engine.begin() as conn:
            yield conn
    except DBAPIError as error:
        reason = chosen.without_secrets(str(error.orig).strip().splitlines()[0])
        raise DatabaseUnusable(f"the database: {reason}; `traind db upgrade` migrates it") from None
    except (ValueError, NotFound) as error:
        raise LocalError(str(error)) from None
