"""Errors of the command line itself, beside those of `traind.errors`, and what each exit code means.

TraindError
└── CliError                exit code 1
    ├── NoService           no service was found (connection)
    ├── UnknownJob          not a job's id (connection), exit code 2
    └── Refused             a spec or a flag is wrong, exit code 2
        ├── BadFlag         (draft)
        └── UnreadableDocument (documents)
"""

from __future__ import annotations

from typing import ClassVar

from traind.errors import TraindError

OK = 0
FAILED = 1
USAGE = 2
DIVERGED = 3
CANCELLED = 4
INTERRUPTED = 130

OUTCOMES = {"succeeded": OK, "failed": FAILED, "diverged": DIVERGED, "cancelled": CANCELLED}
"""Exit codes of `traind watch`, by the state that the job ended in."""


class CliError(TraindError):
    """Root of the command line's errors: one message, and the lines that explain it."""

    code = "cli-error"
    exit_code: ClassVar[int] = FAILED

    def __init__(self, message: str, *lines: str) -> None:
        super().__init__(message)
        self.lines = lines


class Refused(CliError):
    """What the user gave cannot be used."""

    code = "refused"
    exit_code = USAGE
