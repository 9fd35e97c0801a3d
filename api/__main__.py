"""`python -m api`: serve HTTP until SIGTERM or SIGINT, then finish what is under way.

The socket is bound here or inherited (`--fd`), so a supervisor can choose the port once and keep it over restarts.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

import structlog
import uvicorn

from api.app import create_app
from api.protocol import protocol
from jobs.environment import unread_variables
from jobs.log import configure
from jobs.settings import InvalidSettings, Settings, load

GRACE_SECONDS = 10

log = structlog.get_logger("api")


def main(argv: list[str] | None = None) -> None:
    """Serve. Exits with a message: with 2 if the settings cannot be used, with 1 if the address cannot."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    arguments = _arguments(argv)
    try:
        settings = load(host=arguments.host, port=arguments.port)
        configure(level=settings.log_level, log_format=settings.log_format)
        logging.getLogger("alembic").setLevel(logging.WARNING)  # /readyz asks it for the revision
        for line in unread_variables():
            log.warning(line)
        app = create_app(settings)
        listener = _listener(arguments, settings)
    except (InvalidSettings, ValueError) as error:
        _refuse(error, code=2)
    except OSError as error:
        _refuse(error, code=1)
    config = uvicorn.Config(
        app,
        http=protocol(settings.read_timeout_seconds),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="none",
    )
    with listener:
        log.info("listening", address=_address(listener))
        uvicorn.Server(config).run(sockets=[listener])


def _refuse(error: Exception, *, code: int) -> NoReturn:
    sys.stderr.write(f"api: {error}\n")
    sys.exit(code)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api", description="traind's HTTP service")
    parser.add_argument("--host", help="address to listen on (TRAIND_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (TRAIND_PORT)")
    parser.add_argument("--fd", type=int, help="listen on this inherited socket instead")
    return parser.parse_args(argv)


def _listener(arguments: argparse.Namespace, settings: Settings) -> socket.socket:
    if arguments.fd is not None:
        return socket.socket(fileno=arguments.fd)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        where = f"{settings.host} port {settings.port}"
        raise OSError(f"TRAIND_HOST, TRAIND_PORT: cannot listen on {where}: {error}; choose others") from None


def _address(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return str(listener.getsockname())
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Before uvicorn takes the signals over, and when it hands them back at the end."""
    sys.exit(0)


if __name__ == "__main__":
    main()
