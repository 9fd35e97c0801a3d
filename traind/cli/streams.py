"""The standard streams where they are closed, or lead to a full disk. Called by `traind.cli.app.main`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO})


def open_closed_ones() -> None:
    """Give a closed stream its descriptor back, so that no file that is opened later takes it.

    A write to a standard output that was closed still fails; what goes to a closed standard error is dropped.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  open as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def was_writing(error: OSError) -> bool:
    """Whether it is the failure of a write to an open stream: it names no file."""
    return error.filename is None and error.errno in _WRITE_ERRORS


def drop_unwritten() -> None:
    """Let what standard output still holds go nowhere, so that its flush at exit does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
