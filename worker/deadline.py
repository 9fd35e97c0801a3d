"""The trainer's own deadline: a kernel timer that kills the process at "run until T", whatever its code does.

On Linux a POSIX timer on CLOCK_BOOTTIME that sends SIGKILL (`timer_create(2)`, by ctypes): it kills a stopped
process and one inside a C call. Elsewhere ITIMER_REAL with SIGALRM's default action. Called in the trainer only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from worker.clock import boottime

_CLOCK_BOOTTIME = 7
_TIMER_ABSTIME = 1
_SIGEV_SIGNAL = 0


class _Sigevent(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("reserved", ctypes.c_byte * 48),
    ]


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class Deadline:
    """Kills this process at the time last given to `move`; timers are not inherited, so make it after the fork."""

    def __init__(self, at: float) -> None:
        self._timer = _create_timer() if sys.platform == "linux" else None
        self.move(at)

    def move(self, at: float) -> None:
        """End this process at `at`, in seconds of `worker.clock.boottime`; at once where that has passed."""
        if self._timer is None:
            signal.setitimer(signal.ITIMER_REAL, max(at - boottime(), 1e-6))
            return
        seconds, fraction = divmod(max(at, 1e-6), 1)
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(int(seconds), int(fraction * 1e9)))
        _check(_libc().timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(spec), None))


def _create_timer() -> ctypes.c_void_p:
    event = _Sigevent(signo=signal.SIGKILL, notify=_SIGEV_SIGNAL)
    timer = ctypes.c_void_p()
    _check(_libc().timer_create(_CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(timer)))
    return timer


def _libc() -> ctypes.CDLL:
    """libc, or librt where the timers live there (glibc before 2.34)."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc if hasattr(libc, "timer_create") else ctypes.CDLL("librt.so.1", use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
