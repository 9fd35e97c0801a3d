"""The death pipe: a trainer ends when its worker ends, however that happens.

The trainer holds the read end, the worker the only write end, which the kernel closes with the worker. On Linux
the kernel then sends the trainer SIGKILL (O_ASYNC with F_SETSIG), also inside a C call that holds the GIL;
elsewhere a thread waits for the end of the pipe. PR_SET_PDEATHSIG would follow the fork server and the thread that
made the child instead. Called in the trainer only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading


def die_with_writer(fd: int) -> None:
    """End this process when the last write end of the pipe `fd` is closed; at once where that has happened."""
    if sys.platform != "linux":
        threading.Thread(target=_wait, args=(fd,), name="death-pipe", daemon=True).start()
        return
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        closed_before = os.read(fd, 1) == b""
    except BlockingIOError:
        closed_before = False
    if closed_before:
        os.kill(os.getpid(), signal.SIGKILL)


def _wait(fd: int) -> None:
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGKILL)
