"""The clock that a lease is counted on: CLOCK_BOOTTIME, the same in every process and running while a machine sleeps.

Elsewhere than on Linux it is the monotonic clock. Used by the heartbeat (when must the trainer end?) and by the
trainer's own deadline.
"""

from __future__ import annotations

import sys
import time


def boottime() -> float:
    """Seconds since boot, on a clock that all processes of this machine share."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
