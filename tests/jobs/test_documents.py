"""What a worker reports can be stored, whatever it is, and numbers come back as they went."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, cast, select
from sqlalchemy.dialects.postgresql import JSONB

from jobs.documents import clean_text, pack, unpack_floats

NUMBERS = st.recursive(
    st.floats() | st.integers(-(2**53), 2**53) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@given(NUMBERS)
def test_numbers_come_back(document: object) -> None:
    packed = json.loads(json.dumps(pack(document), allow_nan=False))
    assert repr(unpack_floats(packed)) == repr(document)


def test_the_three_numbers_that_json_lacks() -> None:
    packed = pack({"a": math.nan, "b": [math.inf, -math.inf], "c": 1.5})
    assert packed == {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": 1.5}
    back = unpack_floats(packed)
    assert math.isnan(back["a"])
    assert back["b"] == [math.inf, -math.inf]


def test_any_text_can_be_stored(engine: Engine) -> None:
    texts = {"plain": True, "nul \x00 inside": False, "half \ud800 pair": False, "\x00": False, "\U0001f600": True}
    with engine.connect() as conn:
        for text, clean in texts.items():
            stored = conn.execute(select(cast(pack({text: [text]}), JSONB))).scalar_one()
            assert stored == {clean_text(text): [clean_text(text)]}
            assert (clean_text(text) == text) is clean
