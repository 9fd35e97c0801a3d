"""The clock that a lease is counted on: CLOCK_BOOTTIME, the same in every process and running while a machine sleeps.

Elsewhere than on Linux it is the monotonic clock. Used by the heartbeat (when must the trainer end?) and by the
trainer's own deadline.
"""

from __future__ import annotations

import sys
import time

_CLOCK = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC


def boottime() -> float:
    """Seconds since boot, on a clock that all processes of this machine share."""
    return time.clock_gettime(_CLOCK)
