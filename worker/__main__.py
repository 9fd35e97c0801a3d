"""A worker process: `python -m worker [--once] [--device cpu|cuda] [--queues a,b] [--name n]`.

Reads TRAIND_… settings. It lives in a package's `__main__`, because a trainer started by `multiprocessing` would
import any other main module again, with Celery and all.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import structlog
from sqlalchemy.exc import OperationalError

from jobs.environment import unread_variables
from jobs.log import configure
from jobs.settings import InvalidSettings, load
from worker.app import hang_up, listen, make_app
from worker.health import MOST_NAME_CHARACTERS, default_name
from worker.host import CannotStart, Host, open_host
from worker.parent import Parent
from worker.process import WarmUpFailed, warm_up
from worker.rounds import housekeeping, reaper, sign_of_life, watchdog, word_to
from worker.slot import Slot
from worker.stopping import on_signals

log = structlog.get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop (with --once: until one job ended); the process's exit code."""
    arguments = _parse(argv)
    given = {"worker_device": arguments.device, "worker_queues": arguments.queues}
    try:
        settings = load(**given)
    except InvalidSettings as error:
        return _refuse(str(error), code=2)
    if settings.database_url is None or settings.redis_url is None:
        return _refuse("set TRAIND_DATABASE_URL and TRAIND_REDIS_URL, or start all of it with `traind up`", code=2)
    database_url, redis_url = settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    configure(level=settings.log_level, log_format=settings.log_format)
    for line in unread_variables():
        log.warning(line)
    logging.getLogger("celery").setLevel(max(logging.WARNING, logging.getLogger().level))
    try:
        warm_up(settings.worker_device)
        with open_host(settings, database_url=database_url, redis_url=redis_url, name=arguments.name) as host:
            return _work(host, once=arguments.once, parent=Parent(arguments.tell_fd))
    except (WarmUpFailed, CannotStart) as error:
        return _refuse(str(error), code=1)
    except OperationalError as error:
        return _refuse(f"the database does not answer: {' '.join(str(error.orig).split())}", code=1)


def _refuse(message: str, *, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code


def _work(host: Host, *, once: bool, parent: Parent) -> int:
    slot = Slot(host)
    with ExitStack() as stack:
        for rounds in (reaper(host), *housekeeping(host), sign_of_life(host, slot), watchdog(slot)):
            stack.enter_context(rounds)
        if once:
            on_signals(slot.stop)
            if not slot.work_once():
                if host.condition.trouble is not None:
                    return _refuse(host.condition.trouble, code=1)
                log.info("nothing is due")
            return 0
        on_signals(partial(_stop, slot))
        host.condition.look()
        stack.enter_context(slot)
        log.info("worker ready", worker=str(host.worker_id), queues=host.settings.worker_queues)
        stack.enter_context(word_to(parent, host))
        app = make_app(slot, cluster_id=host.cluster_id, redis_url=host.redis_url)
        return listen(app, name=host.name, queues=host.settings.worker_queues)


def _stop(slot: Slot) -> None:
    hang_up()
    slot.stop()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Trains jobs, one at a time.")
    parser.add_argument("--once", action="store_true", help="run the best due job, if there is one, and exit")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="what to train on (TRAIND_WORKER_DEVICE)")
    parser.add_argument("--queues", help="names of queues, separated by commas (TRAIND_WORKER_QUEUES)")
    parser.add_argument(
        "--name", type=_name, default=default_name(), help="shown in the list of workers (default: this machine's)"
    )
    parser.add_argument(
        "--tell-fd", type=int, help="inherited descriptor to write a line of JSON to when it takes jobs or falls ill"
    )
    return parser.parse_args(argv)


def _name(given: str) -> str:
    if not re.fullmatch(rf"[\w.-]{{1,{MOST_NAME_CHARACTERS}}}", given, re.ASCII):
        raise argparse.ArgumentTypeError("a name has ASCII letters, digits, '_', '.' and '-', at most 63 of them")
    return given


if __name__ == "__main__":
    sys.exit(main())
