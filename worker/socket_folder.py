"""A folder for multiprocessing's sockets whose path is short enough for one, however long TMPDIR is.

A unix socket's path has at most 107 bytes. multiprocessing puts the fork server's into a temporary folder of its own,
made once for the process; under a TMPDIR of some 75 bytes or more (SLURM, CI) no fork server would start.
"""

from __future__ import annotations

import os
import tempfile
from multiprocessing import util
from pathlib import Path

SOCKET_BYTES = 107
NAMES = "/pymp-xxxxxxxx/listener-xxxxxxxx"
"""What multiprocessing appends to the temporary folder's path."""
LONGEST_BYTES = SOCKET_BYTES - len(NAMES)
SHORT = ("/tmp", "/var/tmp", "/dev/shm", "/run/shm")  # noqa: S108  the folder made in it is ours alone (0700)


class NoSocketFolder(Exception):
    """No folder for the sockets; the message says what to do."""


def use_short_folder() -> None:
    """Have multiprocessing make its folder where the path is short. Call it before anything of it starts.

    Raises NoSocketFolder.
    """
    try:
        usual = tempfile.gettempdir()
    except OSError as error:
        raise NoSocketFolder(f"no folder for temporary files: {error.strerror}; set TMPDIR to one") from error
    if len(os.fsencode(usual)) <= LONGEST_BYTES:
        return
    for folder in dict.fromkeys([os.environ.get("XDG_RUNTIME_DIR", ""), *SHORT]):
        if Path(folder).is_absolute() and len(os.fsencode(folder)) <= LONGEST_BYTES and _make_below(folder):
            return
    raise NoSocketFolder(
        f"TMPDIR has {len(os.fsencode(usual))} bytes, too many for a socket, and none of {', '.join(SHORT)} can be "
        f"written; set TMPDIR to a folder of at most {LONGEST_BYTES} bytes"
    )


def _make_below(folder: str) -> bool:
    """Whether multiprocessing could make its folder there; it keeps it and removes it at the end."""
    usual, tempfile.tempdir = tempfile.tempdir, folder
    try:
        util.get_temp_dir()
    except OSError:
        return False
    finally:
        tempfile.tempdir = usual
    return True
