"""The outermost layer of every request: its id, one line in the log, and the answer to a defect.

Plain ASGI, so that a streamed body is passed through untouched. Headers, query strings and bodies are never logged.
Health checks that pass and polls that found nothing new are logged at the level debug: they would fill the disk.
"""

from __future__ import annotations

import logging
import re
import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import internal

log = structlog.get_logger("api")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOT_MODIFIED = 304
TOLD = "told"
QUIET = frozenset({"/livez", "/readyz"})


def tell(request: Request, **fields: object) -> None:
    """Add fields to the request's line in the log, such as who asked and which job was made."""
    request.scope["state"].setdefault(TOLD, {}).update(fields)


class Access:
    """ASGI middleware. A client's own X-Request-Id is kept where it is short and plain."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        offered = request.headers.get("x-request-id", "")
        own_id = offered if REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        request_id = scope.setdefault("state", {}).setdefault("request_id", own_id)
        started, status, n_bytes = time.perf_counter(), 0, 0

        async def tracked(message: Message) -> None:
            nonlocal status, n_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            n_bytes += len(message.get("body", b""))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, tracked)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status:
                    raise
                await internal(request)(scope, receive, tracked)
            finally:
                quiet = scope["path"] in QUIET or status == NOT_MODIFIED
                ms = round((time.perf_counter() - started) * 1000, 1)
                entry = {"method": scope["method"], "path": scope["path"], "status": status, "bytes": n_bytes, "ms": ms}
                entry |= scope["state"].get(TOLD, {})
                log.log(logging.DEBUG if quiet and status < 400 else logging.INFO, "request", **entry)
