"""Keys that were just verified, so that a poll costs no extra query. A revoked key works for at most TTL_SECONDS."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from jobs.keys import Principal

TTL_SECONDS = 5.0
MAX_KEYS = 1_024


class KeyCache:
    """By SHA-256 of the key, never the key. Bounded: when full it is emptied. Wrong keys are not kept."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Principal, float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Principal | None:
        principal, until = self._known.get(_digest(key), (None, 0.0))
        return principal if self._clock() < until else None

    def put(self, key: str, principal: Principal) -> None:
        with self._lock:
            if len(self._known) >= MAX_KEYS:
                self._known.clear()
            self._known[_digest(key)] = (principal, self._clock() + TTL_SECONDS)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
