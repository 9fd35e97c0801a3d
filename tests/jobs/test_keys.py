"""API keys: a made key opens its project, everything else is refused, and no part of a key is kept."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, event, insert, select, text

from jobs import keys
from jobs.errors import NotFound
from jobs.tables import api_key, project

SAMPLE = "td_" + "0" * 29 + "1" + "1BoBBs"


def test_a_made_key_opens_its_project(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        key = keys.create(conn, project_id, name="laptop", scopes=["write", "read"])
    with engine.connect() as conn:
        principal = keys.authenticate(conn, key)
    assert principal is not None
    assert (principal.project_id, principal.name, principal.scopes) == (project_id, "laptop", {"read", "write"})


def test_keys_are_kept_as_hashes_only(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        key = keys.create(conn, project_id, name="laptop", scopes=["read"])
        stored = conn.execute(text("SELECT api_key::text FROM api_key")).scalar_one()
    assert key[-6:] not in stored
    assert key[3:] not in stored


def test_two_keys_differ(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        made = {keys.create(conn, project_id, name="k", scopes=["read"]) for _ in range(5)}
    assert len(made) == 5
    assert all(keys.well_formed(key) for key in made)


def test_a_revoked_key_is_refused(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        key = keys.create(conn, project_id, name="laptop", scopes=["read"])
        key_id = conn.execute(select(api_key.c.id)).scalar_one()
        keys.revoke(conn, project_id, key_id)
        first = conn.execute(select(api_key.c.revoked_at)).scalar_one()
        keys.revoke(conn, project_id, key_id)
        assert conn.execute(select(api_key.c.revoked_at)).scalar_one() == first
        assert keys.authenticate(conn, key) is None


def test_only_its_own_project_can_revoke_a_key(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        other = conn.execute(insert(project).values(name="other").returning(project.c.id)).scalar_one()
        key = keys.create(conn, project_id, name="laptop", scopes=["read"])
        with pytest.raises(NotFound):
            keys.revoke(conn, other, conn.execute(select(api_key.c.id)).scalar_one())
        assert keys.authenticate(conn, key)


def test_an_unknown_key_is_refused(engine: Engine) -> None:
    with engine.connect() as conn:
        assert keys.authenticate(conn, SAMPLE) is None


def test_a_bad_checksum_costs_no_query(engine: Engine) -> None:
    statements: list[str] = []
    with engine.connect() as conn:
        event.listen(conn, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert keys.authenticate(conn, SAMPLE[:-1] + "t") is None
        assert statements == []
        keys.authenticate(conn, SAMPLE)
        assert len(statements) == 1


def test_the_checksum_is_documented_by_this_key() -> None:
    assert keys.well_formed(SAMPLE)


@given(st.integers(3, len(SAMPLE) - 1), st.sampled_from(string.digits + string.ascii_letters))
def test_no_single_typo_passes(place: int, character: str) -> None:
    typo = SAMPLE[:place] + character + SAMPLE[place + 1 :]
    assert keys.well_formed(typo) == (typo == SAMPLE)


@given(st.text() | st.text().map(lambda s: "td_" + s) | st.just(SAMPLE * 1_000) | st.just(SAMPLE + "\n"))
def test_hostile_keys_are_refused(key: str) -> None:
    assert not keys.well_formed(key)


def test_scopes_are_checked(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        for scopes in ([], ["root"], ["read", "root"]):
            with pytest.raises(ValueError, match="scopes must be some of"):
                keys.create(conn, project_id, name="laptop", scopes=scopes)
