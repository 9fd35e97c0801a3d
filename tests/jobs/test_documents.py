"""What a worker reports can be stored, whatever it is, and numbers come back as they went."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, cast, select
from sqlalchemy.dialects.postgresql import JSONB

from jobs.documents import clean_text, pack, unpack_floats

NUMBERS = st.recursive(
    st.floats() | st.integers(-(2**53), 2**53) | st.none() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="ascii")), inner, max_size=3)
    ),
)


@given(NUMBERS)
def test_numbers_come_back(document: object) -> None:
    packed = json.loads(json.dumps(pack(document), allow_nan=False))
    assert repr(unpack_floats(packed)) == repr(document).replace("\\x00", "\ufffd") or "\x00" in repr(document)


def test_the_three_numbers_that_json_lacks() -> None:
    packed = pack({"a": math.nan, "b": [math.inf, -math.inf], "c": 1.5})
    assert packed == {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": 1.5}
    back = unpack_floats(packed)
    assert math.isnan(back["a"])
    assert back["b"] == [math.inf, -math.inf]


@pytest.mark.parametrize("text", ["plain", "nul \x00 inside", "half \ud800 pair", "\x00", "fine \U0001f600"])
def test_any_text_can_be_stored(engine: Engine, text: str) -> None:
    with engine.connect() as conn:
        assert echo(conn, {text: text}) == {clean_text(text): clean_text(text)}
    assert ("\x00" in text or "\ud800" in text) == (clean_text(text) != text)


def echo(conn: Connection, document: object) -> object:
    return conn.execute(select(cast(pack(document), JSONB))).scalar_one()
