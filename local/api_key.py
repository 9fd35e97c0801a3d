"""The local API key: made once, kept in the data folder with mode 0600, made anew where the database forgot it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from jobs import keys, tables
from jobs.database import make_engine
from traind.service import write_private

FILE_NAME = "api-key"


def ensure(data_dir: Path, database_url: str) -> str:
    """A key that the database at `database_url` takes, for its default project."""
    path = data_dir / FILE_NAME
    known = path.read_text().strip() if path.exists() else ""
    engine = make_engine(database_url, application_name="traind-up", pool_size=0)
    with engine.begin() as connection:
        if known and keys.authenticate(connection, known):
            return known
        default = select(tables.project.c.id).where(tables.project.c.name == "default")
        made = keys.create(connection, connection.execute(default).scalar_one(), name="local", scopes=keys.SCOPES)
    write_private(path, made + "\n")
    return made
