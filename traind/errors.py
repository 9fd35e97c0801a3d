"""Errors that a user of traind can meet, on either side of the API.

    TraindError                 code, retryable
    ├── InvalidSpec             the spec cannot run; `problems` name each field by JSON pointer
    ├── ModelUnreadable         a file of weights that cannot be loaded
    └── ApiError                the service answered with a problem document, or not at all

Codes are kebab-case and stable. Other packages derive their own roots from TraindError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class TraindError(Exception):
    """Root of traind's errors. `code` is stable; `retryable` says whether the same call can succeed later."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


@dataclass(frozen=True)
class Problem:
    """One bad field: its JSON pointer (RFC 6901), a stable code and what to do."""

    pointer: str
    code: str
    message: str


class InvalidSpec(TraindError):
    """The spec cannot run. `problems` has one entry per bad field, never empty."""

    code = "invalid-spec"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.pointer or '(the whole spec)'}: {p.message}" for p in self.problems))

    @classmethod
    def at(cls, pointer: str, message: str, *, code: str = "rule") -> InvalidSpec:
        return cls([Problem(pointer, code, message)])

    @classmethod
    def from_validation(cls, error: ValidationError, document: Any) -> InvalidSpec:
        """From pydantic's error about `document`; the tags of discriminated unions are left out of the pointers."""
        problems: dict[str, Problem] = {}
        for e in error.errors(include_url=False, include_input=False):
            within, message = _within(e)
            at = pointer(e["loc"], document) + within
            known = problems.get(at)
            problems[at] = Problem(at, e["type"], f"{known.message}; or: {message}" if known else message)
        return cls(list(problems.values()))


def _within(e: ErrorDetails) -> tuple[str, str]:
    """What to append to the pointer of one of pydantic's errors, and the message: a union's tag is a field, too."""
    context = e.get("ctx", {})
    tag = context.get("discriminator", "").strip("'")
    match e["type"]:
        case "union_tag_invalid":
            return f"/{tag}", f"'{context['tag']}' is unknown; choose one of {context['expected_tags']}"
        case "union_tag_not_found":
            return f"/{tag}", f"{tag} is missing; it says which one is meant"
    return context.get("at", ""), e["msg"]


def pointer(loc: Sequence[str | int], document: Any) -> str:
    """JSON pointer (RFC 6901) to pydantic's `loc` in `document`, without the tags of unions."""
    parts: list[str] = []
    here = document
    for part in loc:
        if isinstance(here, (str, int, float)):
            break
        if isinstance(here, dict) and part not in here and part in (here.get("name"), here.get("type")):
            continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            here = None
    return "".join(f"/{part}" for part in parts)


class ModelUnreadable(TraindError):
    """A file of weights is damaged, not of traind, or does not describe its model."""

    code = "model-unreadable"


class ApiError(TraindError):
    """The service refused a call (`status` is its HTTP status) or gave no usable answer (`status` may be None).

    `code`, `pointer` and `problems` are the problem document's (RFC 9457). `retryable`: the same call may work later.
    """

    code: str  # type: ignore[misc]  # the service's own code
    retryable: bool  # type: ignore[misc]

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
        pointer: str | None = None,
        problems: Sequence[Problem] = (),
        request_id: str | None = None,
    ) -> None:
        self.code = code
        self.detail = detail
        self.status = status
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.pointer = pointer
        self.problems = tuple(problems)
        self.request_id = request_id
        super().__init__(detail)
