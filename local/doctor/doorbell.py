"""Redis: whether the doorbell can ring. Jobs start without it too, by the workers' polling."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError
from redis.retry import Retry

from jobs.doorbell import broker_url
from local.doctor.findings import Finding, bytes_text, error, ok, warning

TIMEOUT_SECONDS = 2.0
PINGS = 20
SLOW_SECONDS = 0.05
OLDEST = 6
FULL = 0.9
POLLING = "jobs start by polling meanwhile, within seconds"
URL_FIX = "set TRAIND_REDIS_URL to redis://USER:PASSWORD@HOST:PORT/0, rediss://... or unix:///PATH"


def look(url: str, *, embedded: bool) -> Iterator[Finding]:
    """Everything about the server of `url`."""
    try:
        broker_url(url)
    except ValueError:
        yield error("redis", "TRAIND_REDIS_URL cannot be read as the URL of a Redis", URL_FIX)
        return
    try:
        with _client(url) as client:
            latency = _latency(client)
            yield from judge(_info(client))
            yield from _judge_latency(latency)
    except redis.RedisError as problem:
        yield _unreachable(problem, embedded=embedded)


def _client(url: str) -> redis.Redis:
    seconds = TIMEOUT_SECONDS
    return redis.Redis.from_url(
        url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
    )


def _latency(client: redis.Redis) -> float:
    """Seconds of a round trip."""
    taken = []
    client.ping()
    for _ in range(PINGS):
        started = time.perf_counter()
        client.ping()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _info(client: redis.Redis) -> Mapping[str, Any]:
    """Empty where the server does not tell."""
    try:
        info: dict[str, Any] = client.info()
    except (NoPermissionError, ResponseError):
        return {}
    return info


def judge(info: Mapping[str, Any]) -> Iterator[Finding]:
    """What INFO says about a server that rings our bell."""
    if not info:
        fix = "allow the user the command INFO, if it should be looked at"
        yield warning("redis", "it answers, but does not say what it is", fix)
        return
    version, product = str(info.get("redis_version", "0")), "Valkey" if "valkey_version" in info else "Redis"
    if int(version.partition(".")[0]) < OLDEST:
        yield error("redis", f"Redis {version} is too old", f"use Redis {OLDEST} or later, or Valkey")
    else:
        yield ok("redis", f"{product} {info.get('valkey_version', version)}")
    if info.get("redis_mode") == "cluster":
        yield error("redis", "it runs in cluster mode, which Celery cannot use", "use one that stands alone")
    if info.get("role") == "slave":
        yield error("redis", "it is a replica, which only reads", "let TRAIND_REDIS_URL lead to the primary")
    yield from _judge_memory(info)


def _judge_memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    limit, used, policy = info.get("maxmemory", 0), info.get("used_memory", 0), info.get("maxmemory_policy")
    if not limit:
        return
    if used > FULL * limit:
        what = f"its memory is nearly full: {bytes_text(used)} of {bytes_text(limit)}"
        yield warning("redis", what, "raise maxmemory, or let others use another Redis")
    if policy != "noeviction":
        what = f"maxmemory-policy is {policy}: when memory is short it drops wakes; {POLLING}"
        yield warning("redis", what, "set maxmemory-policy noeviction, or use a Redis of its own")


def _judge_latency(seconds: float) -> Iterator[Finding]:
    if seconds > SLOW_SECONDS:
        what = f"a round trip takes {seconds * 1e3:.0f} ms: every submit waits for it"
        yield warning("redis", what, "use a Redis nearer to the api")


def _unreachable(problem: redis.RedisError, *, embedded: bool) -> Finding:
    refused = isinstance(problem, AuthenticationError | AuthorizationError | NoPermissionError)
    if refused or "NOAUTH" in str(problem) or "WRONGPASS" in str(problem):
        fix = "correct the user or the password in TRAIND_REDIS_URL"
        return error("redis", f"it refuses us: {problem}; {POLLING}", fix)
    fix = "start the server, or correct host and port in TRAIND_REDIS_URL"
    if embedded:
        fix = "look into logs/redis.log of the data folder; `traind down` and `traind up` start it again"
    return error("redis", f"it does not answer: {problem}; {POLLING}", fix)
