"""Logging of a process: structlog in front, the standard library's loggers through the same renderer, no secrets."""

from __future__ import annotations

import logging
import re
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_NAME = re.compile(r"password|secret|token|authorization|api_key", re.IGNORECASE)
_SECRET_TEXT = (
    (re.compile(r"(\w+://[^\s:/@]*):\S*@"), r"\1:***@"),
    (re.compile(r"(password=)('[^']*'|[^\s&]+)", re.IGNORECASE), r"\1***"),
    (re.compile(r"\btd_\w{6,}"), "td_***"),
)


def configure(*, level: str, log_format: Literal["json", "console"], stream: TextIO | None = None) -> None:
    """Log to `stream` (stderr) from here on, one line per event; `level` is debug, info, warning or error."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    colors = log_format == "console" and stream.isatty()
    render: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=colors)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Values of fields that sound secret, passwords in URLs and API keys in any text become stars, however deep."""
    return {name: _hide(name, value) for name, value in event.items()}


def _hide(name: str, value: object) -> object:
    if name.startswith("_"):
        return value
    if _SECRET_NAME.search(name):
        return "***"
    if isinstance(value, dict):
        return {key: _hide(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hide("", inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


def redact(text: str) -> str:
    """`text` with stars for passwords in URLs and connection strings, and for API keys."""
    for pattern, stars in _SECRET_TEXT:
        text = pattern.sub(stars, text)
    return text
