"""Projects: what API keys open. Jobs, checkpoints and keys belong to one project and do not exist for the others.

Called by the operators' commands (`traind projects`, `traind keys`). The first migration
makes the project `default`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from jobs import names
from jobs.errors import NotFound
from jobs.tables import api_key, project

DEFAULT = "default"


def create(conn: Connection, name: str) -> int:
    """A new project's id. Raises ValueError if the name cannot be one or is taken."""
    name = names.checked(name, "project")
    made = insert(project).values(name=name).on_conflict_do_nothing().returning(project.c.id)
    project_id = conn.execute(made).scalar_one_or_none()
    if project_id is None:
        raise ValueError(f"there is a project {name!r} already; `traind projects ls` lists them")
    return int(project_id)


def find(conn: Connection, name: str) -> int:
    """The id of the project of that name. Raises NotFound."""
    project_id = conn.execute(select(project.c.id).where(project.c.name == name)).scalar_one_or_none()
    if project_id is None:
        raise NotFound("project", name)
    return int(project_id)


def list_projects(conn: Connection) -> Sequence[Any]:
    """Rows (id, name, n_keys, created_at), oldest first; `n_keys` counts the keys that are not revoked."""
    valid = (api_key.c.project_id == project.c.id) & api_key.c.revoked_at.is_(None)
    n_keys = select(func.count()).where(valid).scalar_subquery().label("n_keys")
    return conn.execute(select(project.c.id, project.c.name, n_keys, project.c.created_at).order_by(project.c.id)).all()
