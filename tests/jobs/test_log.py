"""Log lines: one JSON object each, from structlog and the standard library alike, and never a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog

from jobs.log import configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_kinds_of_logger_write_one_object_a_line(stream: io.StringIO) -> None:
    configure(level="info", log_format="json", stream=stream)
    structlog.get_logger("ours").info("claimed", job=UUID(int=1))
    logging.getLogger("theirs").warning("odd %s", "thing")
    structlog.get_logger("ours").debug("not shown")
    first, second = lines(stream)
    assert (first["event"], first["job"], first["level"], first["logger"]) == (
        "claimed",
        str(UUID(int=1)),
        "info",
        "ours",
    )
    assert (second["event"], second["level"], second["logger"]) == ("odd thing", "warning", "theirs")
    assert first["timestamp"].endswith("Z")


def test_secrets_are_hidden_wherever_they_stand(stream: io.StringIO) -> None:
    configure(level="debug", log_format="json", stream=stream)
    log = structlog.get_logger()
    log.info("opened postgresql://me:hunter2@host/db", redis_url="redis://:hunter2@host", api_key="hunter2")
    log.info("key td_hunter2hunter2 refused", lease_token="hunter2", password="hunter2")
    logging.getLogger("theirs").error("no postgresql://me:hunter2@host")
    log.info("odd", url="postgresql://me:p@hunter2@host/db", dsn="host=h password='hunter2 x' port=1", n=1)
    log.info(
        "deep", given={"inner": ["redis://:hunter2@host", {"password": "hunter2"}]}, error=OSError("td_hunter2hunter2")
    )
    log.info("query", address="http://host/?password=hunter2&x=1")
    try:
        raise OSError("cannot reach redis://user:hunter2@host")
    except OSError:
        log.exception("failed")
    assert len(lines(stream)) == 7
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0]["event"] == "opened postgresql://me:***@host/db"
    assert "OSError" in lines(stream)[6]["exception"]


def test_for_people_the_same_as_plain_text(stream: io.StringIO) -> None:
    configure(level="warning", log_format="console", stream=stream)
    structlog.get_logger("ours").info("not shown")
    structlog.get_logger("ours").warning("look", password="hunter2")
    assert "look" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
