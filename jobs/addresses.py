"""Judges the URLs of the servers before anything connects to them. No message holds a piece of what was written.

Called by `jobs.settings`, so that every process refuses a URL at its start that libpq, redis-py or Celery would refuse,
each in its own way, at the first request.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from psycopg import Error, pq
from psycopg.conninfo import make_conninfo
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import ArgumentError

from jobs.database import connect_arguments

_FORM = re.compile(
    r"[a-z+]+://(?:[^/?#\[\]@]*@)?(?:\[[\da-f:.]+\](?::\w*)?|[^/?#@\[\]]*)(?:/[^?#@]*)?(?:\?[^#@]*)?", re.I
)
_HALF_ENCODED = re.compile(r"%(?![\da-f]{2})", re.I)
_DATABASE = "postgresql://user:password@host:5432/name"
_REDIS = "redis://:password@host:6379/0, rediss://... with TLS, or unix:///folder/redis.sock"
_ENCODE = "percent-encode special characters of user and password (@ as %40, / as %2F, # as %23, % as %25)"
_DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_REDIS_OPTIONS = ("db", "username", "password")
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "sslrootcert", "sslcert", "sslkey")
_CERT_REQS = ("none", "optional", "required")
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_NOWHERE = "/nonexistent"


def judge_database_url(url: str) -> None:
    """Raises ValueError if psycopg would refuse the URL, whatever server is behind it."""
    _judge_form(url, _DATABASE_SCHEMES, _DATABASE)
    address, ours = connect_arguments(url)
    try:
        _, options = PGDialect_psycopg().create_connect_args(address)  # type: ignore[no-untyped-call]
    except ArgumentError:
        raise ValueError("the URL names several hosts and another number of ports") from None
    if "replication" in options:
        raise ValueError("replication makes connections that run no statements; remove it from the URL")
    for name in sorted(set(options) - _libpq_options()):
        raise ValueError(
            f"{_shown(name)} is no option of PostgreSQL's libpq, but of another driver's; remove it from the URL"
        )
    _judge_ports(str(options.get("port", "") if address.port is None else address.port))
    _judge_numbers(options)
    _judge_files(options.items())
    _judge_values(options | {name: value for name, value in ours.items() if name not in options})


def judge_redis_url(url: str) -> None:
    """Raises ValueError if redis-py or Celery would refuse the URL, or would read it in two ways."""
    _judge_form(url, _REDIS_SCHEMES, _REDIS)
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if parts.path in ("", "/") or parts.netloc.rpartition("@")[2]:
            raise ValueError("a unix:// URL names the socket's file and no host: unix:///folder/redis.sock")
    else:
        _judge_redis_address(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    _judge_redis_options(parts.scheme, given)
    _judge_files(given)


def _judge_form(url: str, schemes: tuple[str, ...], example: str) -> None:
    scheme, colon, _ = url.partition("://")
    if not colon:
        raise ValueError(f"this is no URL: write {example}")
    if scheme not in schemes:
        raise ValueError(f"the URL begins with another scheme: write {example}")
    if any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError("the URL has a space, a line end or another character that does not print; remove it")
    if not _FORM.fullmatch(url) or _HALF_ENCODED.search(url):
        raise ValueError(f"the URL cannot be read; {_ENCODE}: {example}")
    if "\0" in unquote(url):
        raise ValueError("the URL has a zero byte (%00); remove it")


def _judge_ports(ports: str) -> None:
    for port in filter(None, ports.split(",")):
        if not (port.isascii() and port.isdigit() and 1 <= int(port[:9]) <= 65_535):
            raise ValueError("the port is not a number from 1 to 65535")


def _judge_numbers(options: Mapping[str, object]) -> None:
    for name in _NUMBERS:
        if not re.fullmatch(r"-?[0-9]{1,9}", str(options.get(name, 0))):
            raise ValueError(f"{name} is not an integer")


def _judge_files(options: Iterable[tuple[str, object]]) -> None:
    for name, value in options:
        if name in _TLS_FILES and value != "system" and not os.access(str(value), os.R_OK):
            raise ValueError(f"{name} names a file that is not there or cannot be read")


def _judge_redis_address(url: str) -> None:
    parts = urlsplit(url)
    try:
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(f"host or port cannot be read (a port is a number from 1 to 65535); {_ENCODE}") from None
    if port == 0:
        raise ValueError("the port is not a number from 1 to 65535")
    if not host:
        raise ValueError(f"the URL names no host: write {_REDIS}")
    if not re.fullmatch(r"/?|/\d{1,9}", parts.path):
        raise ValueError("what follows the host is not the number of a database, such as /0")


def _judge_redis_options(scheme: str, given: list[tuple[str, str]]) -> None:
    known = _REDIS_OPTIONS + (_TLS_OPTIONS if scheme == "rediss" else ())
    names = [name for name, _ in given]
    for name, value in given:
        if names.count(name) > 1:
            raise ValueError(f"{_shown(name)} is given twice")
        if name in _TLS_OPTIONS and scheme != "rediss":
            raise ValueError(f"{name} needs a rediss:// URL, which is Redis over TLS")
        if name not in known:
            raise ValueError(f"{_shown(name)} is no option that traind knows; it knows {', '.join(known)}")
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            raise ValueError(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}, in small letters")
        if name == "ssl_check_hostname" and value.lower() not in ("true", "false"):
            raise ValueError("ssl_check_hostname must be true or false")
        if name == "db" and not re.fullmatch(r"[0-9]{1,9}", value):
            raise ValueError("db must be the number of a database")


def _judge_values(options: dict[str, object]) -> None:
    """libpq's own judgement of the values (sslmode and so on): it makes it before it looks for the server."""
    n_hosts = str(options.get("host", "")).count(",") + 1
    hosts = {
        name: value for name, value in options.items() if name not in ("host", "hostaddr", "password", "sslpassword")
    }
    try:
        text = make_conninfo("", **hosts, host=",".join([_NOWHERE] * n_hosts))  # type: ignore[arg-type]
        connection = pq.PGconn.connect_start(text.encode())
    except (Error, UnicodeError):
        raise ValueError("libpq cannot read the URL's options; remove them one by one") from None
    try:
        reason = connection.error_message.decode(errors="replace").strip().partition("\n")[0]
    finally:
        connection.finish()
    if reason and _NOWHERE not in reason:
        raise ValueError(f"libpq refuses the URL's options (or a PG... variable): {reason}")


def _libpq_options() -> set[str]:
    return {option.keyword.decode() for option in pq.Conninfo.get_defaults()}


def _shown(name: str) -> str:
    """The option's name, if it looks like one: it may be a piece of a password."""
    return name if re.fullmatch(r"[a-z][a-z_]{0,39}", name) else "one of the options after the ? in the URL"
