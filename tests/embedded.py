"""Embedded Postgres and Redis for the tests: the wheels' programs, in a folder of their own, gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from local.process import Family
from local.servers import Servers


@contextmanager
def servers_for_tests(database_url: str | None, redis_url: str | None) -> Iterator[tuple[str, str]]:
    """Yields (Postgres URL, Redis URL), each as given or else embedded.

    Without fsync, because nothing here outlives the tests.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="traind-tests-"))
    try:
        with (
            closing(Family()) as family,
            Servers(
                data_dir,
                family,
                database_url=database_url,
                redis_url=redis_url,
                redis_source="wheel",
                durable=False,
                report=print,
            ) as servers,
        ):
            yield servers.database_url, servers.redis_url
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)
