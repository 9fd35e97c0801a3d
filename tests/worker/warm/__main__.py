"""`python -m tests.worker.warm SOCKET worker forkserver`: makes workers by fork; see the package.

The last two words are for who looks for a worker or a fork server by its command line. It ends when its stdin does, and
its workers with it. One thread and no tensor work, as in the fork server itself: each worker is a copy of this process.
It lives in a package's `__main__` for the reason that `worker.__main__` gives.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import multiprocessing.util
import os
import selectors
import signal
import socket
import sys
import threading
from typing import Any

PACE = "tests.worker.warm.pace"
MODULES = (
    "worker.__main__",
    "numpy.ma",
    "safetensors.torch",
    "torch",
    "optim_core",
    "worker.child",
    "worker.training.run",
    PACE,
)
"""Those of a worker, and what `worker.preload` imports; that itself is left to the fork server. Trainers are paced."""
REQUEST_BYTES = 1 << 20
_spawn = multiprocessing.util.spawnv_passfds


def main(path: str) -> None:
    """Serve until stdin ends. Returns only in a worker that has ended by itself, which then exits."""
    workers: dict[int, tuple[int, socket.socket]] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen(64)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    _kill(pid for pid, _ in workers.values())
                    return
                if key.fileobj is listener:
                    channel = listener.accept()[0]
                    request, log = _asked(channel)
                    pid = os.fork()
                    if pid == 0:
                        for ours in (listener, selector, channel, *(channel for _, channel in workers.values())):
                            ours.close()
                        _become_worker(request, log, list(workers))
                    os.close(log)
                    channel.send(json.dumps({"pid": pid}).encode())
                    pidfd = os.pidfd_open(pid)
                    workers[pidfd] = pid, channel
                    selector.register(pidfd, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fd)
                    _tell_end(key.fd, *workers.pop(key.fd))


def _asked(channel: socket.socket) -> tuple[dict[str, Any], int]:
    """What worker is wanted, and the descriptor of its log; the imports are done by then."""
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    request, (log,), _, _ = socket.recv_fds(channel, REQUEST_BYTES, 1)
    return json.loads(request), log


def _tell_end(pidfd: int, pid: int, channel: socket.socket) -> None:
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with channel, contextlib.suppress(OSError):
        channel.send(json.dumps({"code": code}).encode())


def _become_worker(request: dict[str, Any], log: int, pidfds: list[int]) -> None:
    """Run a worker in this process, a new child, to its end, as `python -m worker` does."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    for descriptor in (nothing, log, *pidfds):
        os.close(descriptor)
    gc.unfreeze()
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["worker", *request["arguments"]]
    multiprocessing.util.spawnv_passfds = _fork_server_once
    sys.exit(sys.modules["worker.__main__"].main(request["arguments"]))


def _fork_server_once(path: bytes, arguments: list[str], descriptors: list[int]) -> int:
    """As `multiprocessing.util.spawnv_passfds`, but by fork if it is for a fork server and there is only one thread."""
    code = arguments[-1]
    if "forkserver" not in code or threading.active_count() > 1:
        return _spawn_paced(path, arguments, descriptors)
    multiprocessing.util.spawnv_passfds = _spawn_paced
    pid = os.fork()
    if pid == 0:
        kept = sorted({0, 1, 2, *descriptors})
        for before, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(before + 1, after)
        try:
            exec(code, {"__name__": "forkserver"})
        finally:
            os._exit(0)
    return pid


def _spawn_paced(path: bytes, arguments: list[str], descriptors: list[int]) -> int:
    """As `spawnv_passfds`; a fork server that takes the place of one that died has paced trainers, too."""
    *options, code = arguments
    paced = code.replace("['worker.preload']", f"['worker.preload', {PACE!r}]")
    assert (paced != code) == ("forkserver" in code), code
    return int(_spawn(path, [*options, paced], descriptors))


def _kill(pids: Any) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
