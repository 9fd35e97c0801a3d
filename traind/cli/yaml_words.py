"""What is wrong with a YAML text, in words; PyYAML's own are about tokens. Called by `traind.cli.documents`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaml import MarkedYAMLError

WORDS = (
    (r"found character '\\t'", "a tab where only spaces can be; YAML indents with spaces"),
    (r"found character '(.+)' that cannot", r"a value cannot begin with \1; put it in quotes"),
    (
        r"mapping values are not allowed",
        "a ':' where none can be: check the indentation, look for a missing ':' on the line above, and put text that "
        "contains ': ' in quotes",
    ),
    (r"expected <block end>", "the indentation does not fit the lines above"),
    (r"could not find expected ':'", "the field has no ':' after its name"),
    (r"found undefined alias '([^']{1,60})", r"nothing is anchored as \1; put text that begins with '*' in quotes"),
    (r"found another document", "a second document begins here; a spec is one document"),
    (r"expected '<document start>', but found '?(.{1,20}?)'?$", r"'\1' after the end of the document"),
)
"""A part of PyYAML's message, and what is said instead."""


def said(error: MarkedYAMLError) -> str:
    """Line, column and reason."""
    opened = re.match(r"expected ',' or '([\]}])'", error.problem or "")
    mark = error.problem_mark or error.context_mark
    if opened and error.context_mark:
        reason = f"the bracket that opens here is not closed: {_at(mark)} needs ',' or '{opened[1]}'"
        mark = error.context_mark
    elif "quoted scalar" in (error.context or "") and error.context_mark:
        mark, reason = error.context_mark, "the quotes that open here are not closed"
    else:
        reason = _words(error.problem or error.context or "not YAML")
    return f"{_at(mark)}: {reason}" if mark else reason


def _at(mark: object) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"  # type: ignore[attr-defined]


def _words(problem: str) -> str:
    for pattern, words in WORDS:
        if found := re.search(pattern, problem):
            return found.expand(words)
    return problem[:200]
