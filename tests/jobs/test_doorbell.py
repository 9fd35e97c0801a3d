"""The doorbell reaches Redis, and never hurts who rings it."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from uuid import UUID, uuid4

import pytest
import redis
from structlog.testing import capture_logs

from jobs.doorbell import MAX_WAITING, RING_SECONDS, WAKE_TASK, Doorbell, broker_url, celery_options
from tests.jobs.scenario import until


@pytest.fixture
def cluster(redis_url: str) -> Iterator[UUID]:
    """A cluster id of its own, whose keys are dropped."""
    ident = uuid4()
    yield ident
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"traind:{ident}:*", count=1_000):
            client.delete(key)


@pytest.fixture
def bell(redis_url: str, cluster: UUID) -> Iterator[Doorbell]:
    bell = Doorbell(redis_url, cluster)
    yield bell
    bell.close()


@contextmanager
def relay(path: str, redis_url: str) -> Iterator[None]:
    """A unix socket at `path` behind which the Redis of `redis_url` stands."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with redis.Redis.from_url(redis_url) as client:
                connection = client.connection_pool.get_connection()
                server = connection._sock
                server.settimeout(None)
                back = Thread(target=pump, args=(server, self.request))
                back.start()
                pump(self.request, server)
                back.join()
                connection.disconnect()

    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # the other side may be gone
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def hung() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def messages(redis_url: str, cluster: UUID, queue: str) -> list[dict[str, object]]:
    with redis.Redis.from_url(redis_url) as client:
        return [json.loads(m) for m in client.lrange(f"traind:{cluster}:wake.{queue}", 0, -1)]  # type: ignore[union-attr]


def test_a_message_names_the_queue_and_nothing_else(bell: Doorbell, redis_url: str, cluster: UUID) -> None:
    assert bell.ring("slow-queue")
    (message,) = messages(redis_url, cluster, "slow-queue")
    assert message["headers"]["task"] == WAKE_TASK  # type: ignore[index]
    arguments, keywords, _ = json.loads(base64.b64decode(str(message["body"])))
    assert (arguments, keywords) == (["slow-queue"], {})


def test_every_key_carries_the_cluster(bell: Doorbell, redis_url: str, cluster: UUID) -> None:
    queue = uuid4().hex
    bell.ring(queue)
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(f"*{queue}*", count=1_000))
    assert keys
    assert all(key.startswith(f"traind:{cluster}:".encode()) for key in keys)


def test_a_queue_that_nobody_serves_does_not_fill_redis(bell: Doorbell, redis_url: str, cluster: UUID) -> None:
    assert all(bell.ring("unserved") for _ in range(MAX_WAITING + 20))
    assert len(messages(redis_url, cluster, "unserved")) == MAX_WAITING
    assert bell.ring("default")
    assert len(messages(redis_url, cluster, "default")) == 1


def test_connections_that_redis_dropped_are_replaced(bell: Doorbell, redis_url: str, cluster: UUID) -> None:
    assert bell.ring("default")
    with redis.Redis.from_url(redis_url) as client:
        mine = [c["id"] for c in client.client_list() if c["name"] == f"traind:{cluster}"]
        assert mine
        for connection in mine:
            client.client_kill_filter(_id=connection)
    assert bell.ring("default")
    assert len(messages(redis_url, cluster, "default")) == 2


@pytest.fixture
def refusing() -> Iterator[str]:
    """A port that is taken and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


@pytest.mark.parametrize("socket_url", [None, "unix:///nowhere/redis.sock"])
def test_a_dead_redis_is_a_false_and_one_warning(socket_url: str | None, refusing: str) -> None:
    bell = Doorbell(socket_url or refusing, uuid4())
    with capture_logs() as logs:
        before = time.monotonic()
        for _ in range(5):
            bell._quiet_until = 0.0
            assert not bell.ring("default")
        assert time.monotonic() - before < 1.0
    assert [line["log_level"] for line in logs] == ["warning"]
    bell.close()


def test_a_hung_redis_costs_half_a_second_once(hung: str) -> None:
    bell = Doorbell(hung, uuid4())
    before = time.monotonic()
    assert not bell.ring("default")
    first = time.monotonic() - before
    assert not any(bell.ring("default") for _ in range(100))
    rest = time.monotonic() - before - first
    assert 0.4 < first < 1.5
    assert rest < 0.2
    bell.close()


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that answers without end, a byte at a time, each before the client's patience is over."""
    stop = Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client may be gone
                while not stop.wait(0.2):
                    self.request.sendall(b"+")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        stop.set()
        server.shutdown()
        thread.join()


def test_a_redis_that_drips_its_answer_costs_three_seconds_once(dripping: str) -> None:
    bell = Doorbell(dripping, uuid4())
    before = time.monotonic()
    with capture_logs() as logs:
        assert not any(bell.ring("default") for _ in range(100))
    assert RING_SECONDS <= time.monotonic() - before < RING_SECONDS + 1.0
    assert [line["reason"] for line in logs] == ["no whole answer within 3 s"]
    bell.close()


def test_a_hung_unix_socket_is_given_up_too() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "redis.sock"
        server.bind(str(path))
        server.listen(8)
        bell = Doorbell(f"unix://{path}", uuid4())
        before = time.monotonic()
        assert not bell.ring("default")
        assert time.monotonic() - before < 1.5
        bell.close()


def test_it_rings_again_when_redis_is_back(redis_url: str, cluster: UUID) -> None:
    """A relay to the real server stands for a Redis that starts late."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        bell = Doorbell(f"unix://{path}", cluster)
        with capture_logs() as logs:
            assert not bell.ring("default")
            with relay(path, redis_url), closing(bell):
                until(lambda: bell.ring("default"))
    assert logs[-1]["event"] == "Redis answers again"
    assert len(messages(redis_url, cluster, "default")) == 1


def test_a_url_that_is_no_redis_is_refused() -> None:
    with pytest.raises(ValueError, match="Redis URL"):
        Doorbell("amqp://host", uuid4())


@pytest.mark.parametrize(
    ("given", "celerys"),
    [
        ("redis://host", "redis://host/0"),
        ("redis://host:6380/3", "redis://host:6380/3"),
        ("redis://host/3?db=4", "redis://host/4"),
        ("redis://[::1]:6380/1", "redis://[::1]:6380/1"),
        ("redis://me:p%40%3Bss@host:1/0", "redis://me:p%40%3Bss@host:1/0"),
        ("redis://:pw@host", "redis://:pw@host/0"),
        ("rediss://host", "rediss://host/0?ssl_cert_reqs=required"),
        ("rediss://host/1?ssl_cert_reqs=none", "rediss://host/1?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///a%20b;c/r.sock?db=2", "redis+socket:///a%20b%3Bc/r.sock?virtual_host=2"),
        ("unix://:pw@/run/redis.sock", "redis+socket://:pw@/run/redis.sock?virtual_host=0"),
    ],
)
def test_urls_of_redis_in_celerys_words(given: str, celerys: str) -> None:
    assert broker_url(given) == celerys


def test_a_message_is_acknowledged_before_its_task_and_never_fetched_ahead() -> None:
    options = celery_options(uuid4(), "redis://host")
    assert options["task_acks_late"] is False
    assert options["worker_disable_prefetch"] is True
    assert options["worker_prefetch_multiplier"] == 1
    assert options["result_backend"] is None
