"""JSON documents as PostgreSQL can hold them.

jsonb knows neither NaN nor infinity, and no text may hold NUL or half a surrogate pair. A diverged run's summary has
the first, what a dying process printed may have the second. Used by every lifecycle function that stores what a
worker reports, and by `jobs.queries` for the way back.
"""

from __future__ import annotations

import math
import re
from typing import Any

_UNCLEAN = re.compile("[\x00\ud800-\udfff]")
_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def pack(document: Any) -> Any:
    """`document` with NaN and infinities as the strings that JavaScript names them by, and all text storable."""
    match document:
        case dict():
            return {clean_text(str(key)): pack(value) for key, value in document.items()}
        case list() | tuple():
            return [pack(value) for value in document]
        case str():
            return clean_text(document)
        case float() if not math.isfinite(document):
            return "NaN" if math.isnan(document) else "Infinity" if document > 0 else "-Infinity"
        case _:
            return document


def unpack_floats(document: Any) -> Any:
    """The inverse of `pack` for documents of numbers, such as a job's summary: the three strings become floats."""
    match document:
        case dict():
            return {key: unpack_floats(value) for key, value in document.items()}
        case list():
            return [unpack_floats(value) for value in document]
        case str():
            return _NAMES.get(document, document)
        case _:
            return document


def clean_text(value: str) -> str:
    """`value` with NUL and lone surrogates, which PostgreSQL refuses, as U+FFFD."""
    return _UNCLEAN.sub("\ufffd", value)
