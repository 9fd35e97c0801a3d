"""Explains what is wrong with a spec: pydantic's errors about a JobSpec, reworded with the spec's own names.

Called by `InvalidSpec.from_validation`, so the service, the client's CLI and the trainer's command line say the same.
What a client sent is shown shortened and with its control characters escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from traind.errors import KEY, reason
from traind.spec import NO_CONTROL, NOT_BLANK, QUEUE_NAME
from traind.spec_fields import fields, has_default, kind_at, tags
from traind.spec_guesses import elsewhere, guess, known_name

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST_SHOWN = 60
IDEMPOTENCY_KEY: Final = r"^[\x20-\x7e]{1,255}$"
PATTERNS: Final[Mapping[str, str]] = {
    f"^{QUEUE_NAME.pattern}$": "1 to 63 of A-Z, a-z, 0-9, '_', '.' and '-', the first a letter or a digit",
    IDEMPOTENCY_KEY: "1 to 255 printable ASCII characters",
    NO_CONTROL: "text without control characters such as newlines",
    NOT_BLANK: "text that is not blank and has no control characters such as newlines",
}
WANTED: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length}, not of {actual_length}",
    "too_long": "a list of at most {max_length}, not of {actual_length}",
    "string_too_short": "a string of at least {min_length} character",
    "string_too_long": "a string of at most {max_length} characters",
}
"""What a field must be, by pydantic's type of error."""


def within(error: ErrorDetails) -> str:
    """What to append to the pointer of one of pydantic's errors: the tag of a union is a field, too."""
    context = error.get("ctx", {})
    return f"/{context['discriminator'][1:-1]}" if "discriminator" in context else context.get("at", "")


def message(errors: Sequence[ErrorDetails], *, may_guess: bool) -> str:
    """What is wrong with one field, from all that pydantic says about it: more than one if it may be of several kinds.

    `may_guess` allows for a "did you mean", which takes a while.
    """
    wanted = [wants for wants in map(_wanted, errors) if wants]
    if wanted:
        return _must_be(wanted, errors[0])
    return "; ".join(_sentence(error, may_guess=may_guess) for error in errors)


def shown(value: Any) -> str:
    """A value of a document as a person would write it, shortened."""
    match value:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return repr(value) if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]!r}…"
        case int() if value.bit_length() > 64:
            return "a number of more than 64 bits"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"


def name(key: object) -> str:
    """A field's name: bare if it is a plain word."""
    text = str(key)
    return text if re.fullmatch(r"[\w.-]{1,60}", text) else shown(text)


def _wanted(error: ErrorDetails) -> str | None:
    """What the field must be; the caller adds the actual value."""
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error" | "enum":
            return _choice(re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]])
        case "string_pattern_mismatch" if context["pattern"] in PATTERNS:
            return PATTERNS[context["pattern"]]
        case "model_type" | "model_attributes_type":
            return f"a mapping such as {example}" if (example := _example(error)) else "a mapping of fields"
        case kind if kind in WANTED:
            return WANTED[kind].format_map({key: _number(value) for key, value in context.items()})
    return None


def _must_be(wanted: Sequence[str], error: ErrorDetails) -> str:
    value = error["input"]
    subject = "the name " if error["loc"][-1:] == KEY else ""
    found = "" if "actual_length" in error.get("ctx", {}) else f", not {_found(value, error['type'])}"
    return f"{subject}must be {' or '.join(wanted)}{found}{_remedy(value, error)}"


def _found(value: Any, kind: str) -> str:
    if kind in ("string_too_long", "string_too_short"):
        return f"of {len(value):,}"
    return f"the string {shown(value)}" if isinstance(value, str) and kind.endswith("_type") else shown(value)


def _remedy(value: Any, error: ErrorDetails) -> str:
    kind = error["type"]
    if kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        return "; write it without quotes"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {shown(int(value))}"
    if value is None and has_default(error["loc"]):
        return "; leave it out for its default"
    if kind in ("literal_error", "enum") and isinstance(value, str):
        near = guess(value, re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        return f"; did you mean {near}?" if near else ""
    return ""


def _sentence(error: ErrorDetails, *, may_guess: bool) -> str:
    loc = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            return _unknown_field(loc, may_guess=may_guess)
        case "union_tag_invalid" | "union_tag_not_found":
            return _unknown_tag(error, may_guess=may_guess)
        case "missing" if loc and isinstance(loc[-1], int):
            return f"is missing; {name(loc[-2])} must have {loc[-1] + 1} items or more"
        case "missing":
            return f"is missing; give one such as {example}" if (example := _example(error)) else "is missing"
        case "invalid_key":
            return "a field's name must be a string"
    return reason(error)


def _example(error: ErrorDetails) -> str | None:
    """The smallest mapping for a part that has a name: with the given name, if that was given instead of a mapping."""
    known = tags(kind_at(error["loc"]))
    tag, value = next((one for one in known if one[1] == error["input"]), next(iter(known), (None, None)))
    return f'{{"{tag}": "{value}"}}' if tag else None


def _unknown_field(loc: Sequence[str | int], *, may_guess: bool) -> str:
    field = str(loc[-1])
    whole = kind_at(loc[:-1])
    own = fields(whole)
    said = f"{_owner(loc[:-1])} has no {name(field)}"
    near = guess(field, own) if may_guess else None
    if near:
        return f"{said}; did you mean {near}?"
    others, path = elsewhere(loc[:-1], field) if may_guess else ([], None)
    if path:
        return f"{said}; did you mean {path}?"
    note = f" ({_list(others)} {'have' if len(others) > 1 else 'has'})" if others else ""
    options = [one for one in own if one not in dict(tags(whole))] if len(own) > 1 else own
    return f"{said}{note}; {f'its fields are {_list(options)}' if len(options) > 1 else f'its only field is {own[0]}'}"


def _unknown_tag(error: ErrorDetails, *, may_guess: bool) -> str:
    loc, given = error["loc"], error["input"]
    tag = within(error)[1:]
    known = [value for _, value in tags(kind_at(loc))]
    choose = f"choose {_choice(known)}"
    if error["type"] == "union_tag_not_found":
        return f"is missing; {choose}"
    value = given.get(tag) if isinstance(given, dict) else None
    if not isinstance(value, str):
        return f"must be a string, not {shown(value)}; {choose}"
    section = next((part for part in reversed(loc) if isinstance(part, str)), "kind")
    said = f"there is no {section.removesuffix('s')} {name(value)}"
    if remark := known_name(section, value):
        return f"{said}; {remark}"
    near = guess(value, known) if may_guess else None
    return f"{said}; did you mean {near}?{f' There are {_list(known)}'}" if near else f"{said}; {choose}"


def _owner(loc: Sequence[str | int]) -> str:
    """What a person calls the part at `loc`: by its name, its section, or the list it is an item of."""
    if not loc:
        return "a spec"
    return name(loc[-1]) if isinstance(loc[-1], str) else f"an item of {name(loc[-2])}"


def _choice(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
