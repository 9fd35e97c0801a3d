"""API keys: made once, kept as SHA-256, checked by every request.

A key is `td_`, 30 random characters of base 62 (178 bits) and 6 of checksum (CRC-32 of what stands before). The
checksum lets a mistyped or made-up key be refused without asking the database, and lets scanners for leaked secrets
know one when they see it. No function here logs, raises with or keeps any part of a key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from jobs import names
from jobs.errors import NotFound
from jobs.tables import api_key

PREFIX = "td_"
SCOPES = ("read", "write", "admin")
_ENOUGH = {"read": {"read", "write", "admin"}, "write": {"write", "admin"}, "admin": {"admin"}}
"""The scopes of which one is enough for what a scope allows: who may write may also read what was written."""
_RANDOM_LENGTH = 30
_CHECKSUM_LENGTH = 6
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECKSUM_LENGTH}}}")


@dataclass(frozen=True)
class Principal:
    """Who asks: a key's id and name, the one project it opens and what it may do there."""

    key_id: int
    name: str
    project_id: int
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the key's scopes allow what `scope` allows."""
        return not _ENOUGH[scope].isdisjoint(self.scopes)


def create(conn: Connection, project_id: int, *, name: str, scopes: Collection[str]) -> str:
    """A new key in plain text, which cannot be read again. Raises ValueError for a bad name or bad scopes."""
    name = names.checked(name, "key")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ValueError(f"scopes must be some of {', '.join(SCOPES)}, not {', '.join(scopes) or 'none'}")
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    key = body + _checksum(body)
    row = {"project_id": project_id, "name": name, "sha256": _digest(key), "scopes": sorted(scopes)}
    conn.execute(insert(api_key).values(row))
    return key


def authenticate(conn: Connection, key: str) -> Principal | None:
    """Whose key this is; None for one that is malformed, unknown or revoked. A malformed one costs no query."""
    if not well_formed(key):
        return None
    known = (api_key.c.sha256 == _digest(key)) & api_key.c.revoked_at.is_(None)
    row = conn.execute(select(api_key).where(known)).one_or_none()
    return None if row is None else Principal(row.id, row.name, row.project_id, frozenset(row.scopes))


def well_formed(key: str) -> bool:
    """The prefix, the length, the alphabet and the checksum are those of a key."""
    body = key[:-_CHECKSUM_LENGTH]
    return _FORM.fullmatch(key) is not None and key == body + _checksum(body)


def revoke(conn: Connection, project_id: int, key_id: int) -> None:
    """Refuse the key from now on; repeating it changes nothing. Raises NotFound."""
    own = (api_key.c.id == key_id) & (api_key.c.project_id == project_id)
    revoked_at = func.coalesce(api_key.c.revoked_at, func.clock_timestamp())
    changed = update(api_key).where(own).values(revoked_at=revoked_at).returning(api_key.c.id)
    if conn.execute(changed).one_or_none() is None:
        raise NotFound("API key", key_id)


def list_keys(conn: Connection, project_id: int) -> Sequence[Any]:
    """Rows (id, name, scopes, created_at, revoked_at) of the project's keys, oldest first."""
    c = api_key.c
    query = select(c.id, c.name, c.scopes, c.created_at, c.revoked_at).where(c.project_id == project_id)
    return conn.execute(query.order_by(c.id)).all()


def _checksum(body: str) -> str:
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
