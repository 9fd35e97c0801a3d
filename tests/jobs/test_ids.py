"""UUIDs of version 7."""

from __future__ import annotations

import time
from uuid import RFC_4122

from jobs.ids import uuid7


def test_it_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid7() for _ in range(1_000)]
    after = time.time_ns() // 1_000_000
    assert {i.version for i in ids} == {7}
    assert {i.variant for i in ids} == {RFC_4122}
    assert all(before <= i.int >> 80 <= after for i in ids)
    assert len(set(ids)) == 1_000
