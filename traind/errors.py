"""Errors that traind raises to its users, on either side of the API.

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


KEY = ("[key]",)
"""What pydantic appends to the place of a mapping's value if it means the value's name."""
MAX_GUESSES = 20
"""The number of bad fields of a spec for which a correct name is searched."""


MAX_TOLD = 20
"""The number of bad fields that a message lists."""


class TraindError(Exception):
    """Root of traind's errors. `code` is stable; `retryable` says whether the same call can succeed later."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


@dataclass(frozen=True)
class Problem:
    """One bad field: its JSON pointer (RFC 6901), a stable code and a message that says what to do."""

    pointer: str
    code: str
    message: str


class InvalidSpec(TraindError):
    """The spec cannot run. `problems` has one entry per bad field, never empty."""

    code = "invalid-spec"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        told = [f"{short(p.pointer) or '(the whole spec)'}: {p.message}" for p in self.problems[:MAX_TOLD]]
        more = len(self.problems) - len(told)
        super().__init__("; ".join(told) + (f"; and {more} more" if more else ""))

    @classmethod
    def at(cls, pointer: str, message: str, *, code: str = "rule") -> InvalidSpec:
        return cls([Problem(pointer, code, message)])

    @classmethod
    def from_validation(cls, error: ValidationError, document: Any) -> InvalidSpec:
        """From pydantic's error about `document`; the tags of discriminated unions are left out of the pointers.

        Unknown fields come first: a misspelt one is why another is missing.
        """
        from traind.spec_words import message, within

        found: dict[tuple[str, bool], list[ErrorDetails]] = {}
        for e in error.errors(include_url=False):
            at = pointer(e["loc"], document) + within(e)
            found.setdefault((at, e["loc"][-1:] == KEY), []).append(e)
        problems = [
            Problem(at, errors[-1]["type"], message(errors, may_guess=index < MAX_GUESSES))
            for index, ((at, _), errors) in enumerate(found.items())
        ]
        return cls(sorted(problems, key=lambda problem: problem.code != "extra_forbidden"))


def reason(error: ErrorDetails) -> str:
    """What is wrong, in the words of the validator that found it: without what pydantic puts before them."""
    return error["msg"].removeprefix("Value error, ")


def pointer(loc: Sequence[str | int], document: Any) -> str:
    """JSON pointer (RFC 6901) to pydantic's `loc` in `document`, without the tags of unions."""
    parts: list[str] = []
    here = document
    for part in loc[:-1] if loc[-1:] == KEY else loc:
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


def short(pointer: str) -> str:
    """The pointer in a length that people can read: a client's own names can be long."""
    return pointer if len(pointer) <= 200 else f"{pointer[:200]}…"


class ModelUnreadable(TraindError):
    """A weights file is damaged, not from traind, or does not describe its model."""

    code = "model-unreadable"


class ApiError(TraindError):
    """The service refused a call (`status` is its HTTP status) or gave no usable answer (`status` may be None).

    `code`, `pointer` and `problems` come from the problem document (RFC 9457). `retryable`: the same call may succeed
    later.
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
