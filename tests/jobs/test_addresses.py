"""The URLs of the servers are judged before anything connects, and nothing of what was written is repeated."""

from __future__ import annotations

import pytest

from jobs.addresses import judge_database_url, judge_redis_url
from jobs.database import connect_arguments
from jobs.doorbell import broker_url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("foo", "no URL"),
        ("amqp://hunter2@h", "another scheme"),
        ("redis://:hun@ter2@h", "percent-encode"),
        ("redis://:hun#ter2@h:1", "percent-encode"),
        ("redis://:hun/ter2@h", "percent-encode"),
        ("redis://:12/hunter2@h", "percent-encode"),
        ("redis://me:12?hunter=2@h", "percent-encode"),
        ("redis://:hunter2%zz@h", "percent-encode"),
        ("redis://[::1", "percent-encode"),
        ("redis://h/0\n", "line end"),
        ("redis://:%00@h", "zero byte"),
        ("redis://", "names no host"),
        ("redis://h:99999", "1 to 65535"),
        ("redis://h:0", "1 to 65535"),
        ("redis://h/hunter2", "number of a database"),
        ("redis://h?db=x", "number of a database"),
        ("redis://h?max_connections=hunter2", "max_connections is no option"),
        ("redis://h?hunter-2=1", "one of the options"),
        ("redis://h?ssl_cert_reqs=none", "needs a rediss://"),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", "none, optional, required"),
        ("rediss://h?ssl_cert_reqs=required&ssl_cert_reqs=none", "ssl_cert_reqs is given twice"),
        ("rediss://h?ssl_check_hostname=maybe", "true or false"),
        ("rediss://h?ssl_ca_certs=/nonexistent/ca", "ssl_ca_certs names a file"),
        ("unix://", "socket's file"),
        ("unix://host/redis.sock", "socket's file"),
    ],
)
def test_what_is_no_redis_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        judge_redis_url(url)
    assert "hunter" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("foo", "no URL"),
        ("mysql://me:hunter2@h/d", "another scheme"),
        ("postgresql://me:hun@ter2@h/d", "percent-encode"),
        ("postgresql://me:hun/ter2@h/d", "percent-encode"),
        ("postgresql://me:hun?ter2@h/d", "percent-encode"),
        ("postgresql://me:hunter2%@h/d", "percent-encode"),
        ("postgresql://h/d\n", "line end"),
        ("postgresql://h:99999/d", "1 to 65535"),
        ("postgresql://h:0/d", "1 to 65535"),
        ("postgresql://h:x/d", "no database URL"),
        ("postgresql://me:hunter2@h/d?pgbouncer=true", "pgbouncer is no option"),
        ("postgresql://me:hunter2@h/d?schema=public", "schema is no option"),
        ("postgresql://me:hunter2@h/d?sslmode=strict", "invalid sslmode"),
        ("postgresql://h/d?target_session_attrs=primarily", "target_session_attrs"),
        ("postgresql://h/d?connect_timeout=soon", "connect_timeout is not an integer"),
        ("postgresql://h/d?host=a,b&port=1,2,3", "another number of ports"),
        ("postgresql://h/d?sslrootcert=/nonexistent/ca", "sslrootcert names a file"),
        ("postgresql://h/d?service=nowhere", "service"),
        ("postgresql://h/d?replication=true", "replication makes"),
    ],
)
def test_what_is_no_postgres_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        judge_database_url(url)
    assert "hunter" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:6380/3",
        "redis://host/3?db=4",
        "redis://[::1]:6380/1",
        "redis://me:p%40%3Bss@host:1/0",
        "rediss://host/1?ssl_cert_reqs=optional&ssl_check_hostname=False",
        "unix:///a%20b;c/r.sock?db=2",
        "unix://:pw@/run/redis.sock",
    ],
)
def test_a_url_that_is_let_through_is_one_for_celery(url: str) -> None:
    judge_redis_url(url)
    assert broker_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%40%2F@host:5432/d",
        "postgres://host/d",
        "postgresql://[::1]:5432/d",
        "postgresql:///d?host=/tmp/x",
        "postgresql://u@%2Ftmp%2Fx/d",
        "postgresql://me:p@/name?host=a:5432&host=b:5432&target_session_attrs=read-write",
        "postgresql://host/d?sslmode=require&application_name=x&options=-c%20search_path%3Da",
    ],
)
def test_a_url_that_is_let_through_is_one_for_postgres(url: str) -> None:
    judge_database_url(url)
    assert connect_arguments(url)
