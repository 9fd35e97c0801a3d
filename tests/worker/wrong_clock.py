"""A library to preload (LD_PRELOAD) that moves the clock of every process that has it: the time of day, not the time
since boot, as a machine with a wrong clock has it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += AHEAD;
    return result;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


def wrong_clock(library: Path, ahead_seconds: int) -> Path:
    """The library, made by the C compiler."""
    source = library.with_suffix(".c")
    source.write_text(SOURCE)
    command = ["cc", "-shared", "-fPIC", "-O1", f"-DAHEAD=({ahead_seconds})", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library
