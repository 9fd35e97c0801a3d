"""Handles standard streams that are closed or on a full disk. Called by `traind.cli.app.main`."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO})


def open_closed_ones() -> None:
    """Reopen the descriptors of closed streams, so that no file that is opened later takes them.

    Writing to a closed standard output still fails, text for a closed standard error is dropped, and a closed standard
    input is empty.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  open as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  open as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


class ForgivingStderr(io.TextIOWrapper):
    """A standard error that drops text if the disk is full: a command's work matters more than its messages.

    Writing to a pipe without a reader still is an error.
    """

    def __init__(self, replaced: io.TextIOWrapper) -> None:
        super().__init__(replaced.buffer, replaced.encoding, "replace", line_buffering=True)
        self._replaced = replaced  # its end would close the buffer

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as e:
            if e.errno not in _WRITE_ERRORS:
                raise
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as e:
            if e.errno not in _WRITE_ERRORS:
                raise


def forgive_stderr() -> None:
    """Make standard error a ForgivingStderr."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = ForgivingStderr(sys.stderr)


def was_writing(error: OSError) -> bool:
    """Whether the error is a failed write to an open stream: such an error names no file."""
    return error.filename is None and error.errno in _WRITE_ERRORS


def drop_unwritten() -> None:
    """Discard what standard output still buffers, so that its flush at exit does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
