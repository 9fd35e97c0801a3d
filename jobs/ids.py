"""Ids of jobs and workers: UUIDs of version 7, so that neighbours in time are neighbours on disk."""

from __future__ import annotations

import secrets
import time
from uuid import UUID


def uuid7() -> UUID:
    """A new UUID of version 7: 48 bits of Unix milliseconds, 74 random bits. Source: RFC 9562, section 5.7."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (7 << 76)  # version
    value = value & ~(0b11 << 62) | (0b10 << 62)  # variant
    return UUID(int=value)
