"""Waits for a job or a check with polls that back off, are cheap while nothing changes, and report a silent service.

The time between two polls grows with the time waited. A poll names the known version (If-None-Match), so most answers
are an empty 304. A service that does not answer is reported after SILENCE_SECONDS, and polling continues. Used by
`traind.client.client`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from traind.client.answers import Check, Job
from traind.client.http import MAX_RETRY_AFTER_SECONDS, NO_ANSWER, Http
from traind.errors import ApiError

SILENCE_SECONDS = 5.0
"""A silence is reported after this time, and again each time it has lasted twice as long as at the last report."""
OUT_OF_REACH_SECONDS = 150.0
"""After this time without an answer the error is raised."""
QUICKEST_SECONDS = 0.2
SHARE_OF_WAIT = 0.1
"""The time between polls as a share of the time waited so far: an end is noticed at most this much late."""
SECONDS_PER_JOB = 0.05
"""With several jobs, each is polled at most once per this time multiplied by their number."""

R = TypeVar("R", Job, Check)
OnSilence = Callable[[float], None]

log = logging.getLogger("traind.client")


def wait(
    http: Http,
    path: str,
    read: Callable[[Any], R],
    name: str,
    *,
    on_update: Callable[[R], None] | None,
    on_silence: OnSilence | None,
    timeout_seconds: float | None,
    poll_seconds: float,
) -> R:
    """The job or check at `path`, once it has ended. Raises TimeoutError after `timeout_seconds`, and ApiError."""
    began = time.monotonic()
    deadline = math.inf if timeout_seconds is None else began + timeout_seconds
    polls = _Polls(http, path, on_silence, deadline)
    known: tuple[object, ...] | None = None
    seen = read(polls.news())
    while True:
        version = seen.version, getattr(seen, "waiting_for", None)
        if on_update and version != known:
            on_update(seen)
        known = version
        if seen.final:
            return seen
        now = time.monotonic()
        pause = min(poll_seconds, max(QUICKEST_SECONDS, (now - began) * SHARE_OF_WAIT))
        if now + pause > deadline:
            raise TimeoutError(f"{name} is still {seen.state} after {timeout_seconds} seconds")
        time.sleep(pause)
        news = polls.news()
        seen = seen if news is None else read(news)


def wait_all(
    http: Http,
    paths: Sequence[str],
    read: Callable[[Any], R],
    *,
    on_update: Callable[[R], None] | None,
    on_silence: OnSilence | None,
    timeout_seconds: float | None,
    poll_seconds: float,
) -> list[R]:
    """The jobs or checks at `paths`, polled in turn, once all have ended. Raises TimeoutError and ApiError."""
    began = time.monotonic()
    deadline = math.inf if timeout_seconds is None else began + timeout_seconds
    polls = {path: _Polls(http, path, on_silence, deadline) for path in paths}
    seen: dict[str, R] = {}
    while True:
        for path in [path for path in polls if path not in seen or not seen[path].final]:
            if (news := polls[path].news()) is not None:
                seen[path] = read(news)
                if on_update:
                    on_update(seen[path])
        left = sum(not each.final for each in seen.values())
        if not left:
            return [seen[path] for path in paths]
        now = time.monotonic()
        least = max(QUICKEST_SECONDS, left * SECONDS_PER_JOB)
        pause = min(max(poll_seconds, least), max(least, (now - began) * SHARE_OF_WAIT))
        if now + pause > deadline:
            raise TimeoutError(f"{left} of {len(polls)} jobs have not ended after {timeout_seconds} seconds")
        time.sleep(pause)


class _Polls:
    """Polls one path; remembers its ETag and how long the service takes to answer."""

    def __init__(self, http: Http, path: str, on_silence: OnSilence | None, deadline: float) -> None:
        self._http = http
        self._path = path
        self._on_silence = on_silence or self._log
        self._deadline = deadline
        self._etag: str | None = None
        self._patience = min(SILENCE_SECONDS, http.timeout_seconds)

    def news(self) -> Any:
        """The document, or None if it has not changed since the last call. Raises ApiError, TimeoutError."""
        began = time.monotonic()
        report_at, pause = SILENCE_SECONDS, QUICKEST_SECONDS
        while True:
            try:
                return self._ask()
            except ApiError as error:
                silent = time.monotonic() - began
                if not error.retryable or silent > OUT_OF_REACH_SECONDS:
                    raise
                if silent >= report_at:
                    self._on_silence(silent)
                    report_at = 2 * silent
                if error.code == NO_ANSWER:
                    self._patience = min(2 * self._patience, self._http.timeout_seconds)
                rest = max(pause, min(error.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS))
                if time.monotonic() + rest > self._deadline:
                    raise TimeoutError(f"the time to wait is over, and for {silent:.0f} s {error}") from error
            time.sleep(rest)
            pause = min(2 * pause, 2.0)

    def _ask(self) -> Any:
        left = max(self._deadline - time.monotonic(), 0.05)
        document, self._etag = self._http.poll(self._path, self._etag, timeout_seconds=min(self._patience, left))
        return document

    def _log(self, seconds: float) -> None:
        log.warning("no answer from %s for %.0f s; still trying", self._http.url, seconds)
