"""A whole traind service on this machine: servers, migration, key, api and worker, and their end.

    with Service(data_dir, port=0) as service:
        Client(service.url, service.api_key)...

`traind up`, the demo and the tests use this class. (Interface; the body follows within the hour.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType


class Service:
    """Starts everything on entry (returns when the API answers /readyz), stops it in order on exit.

    data_dir     made if it is missing; an existing one must be empty or a data folder of ours. NOT removed on exit.
    port         0: any free one; None: the setting's default (8321), or any free one where that is taken;
                 a number: that one, or an error.
    environment  extra variables for api and worker, e.g. {"TRAIND_FASHION_MNIST_DIR": ...}.
    report       called with one line of text for what an operator wants to see (a restart, a slow recovery).

    Everything that it starts dies with the process that entered it, even by kill -9: no clean-up is needed for that.
    Raises local.errors.LocalError (a TraindError): AlreadyRunning, DataDirError, ServerMissing, StartFailed …
    Start and stop it in any thread; it installs no signal handlers: `with stop_signals():` (local/signals.py)
    turns SIGTERM and SIGHUP into KeyboardInterrupt, so that `with` blocks end in order.
    """

    url: str  # "http://127.0.0.1:40123"
    api_key: str
    data_dir: Path
    log_dir: Path  # api.log, worker.log, postgres.log, redis.log

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int | None = 0,
        environment: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None: ...

    def __enter__(self) -> Service: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def wait(self, *, with_parent: bool = False) -> None:
        """Block until interrupted; with_parent: also return when the process that started us has gone."""
