"""Settings come from the environment, refuse nonsense by name, and their page is current."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.settings import InvalidSettings, Settings, load
from jobs.settings_doc import document


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text() == document(), "run: python -m jobs.settings_doc docs/configuration.md"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_seconds", "-1"),
        ("lease_seconds", "nan"),
        ("lease_seconds", "inf"),
        ("heartbeat_seconds", "59"),
        ("max_body_bytes", "0"),
        ("max_job_memory_bytes", "8"),
        ("max_job_memory_bytes", "8GB"),
        ("worker_memory_bytes", "-1"),
        ("worker_memory_bytes", "9" * 20),
        ("database_dir", "/etc/passwd"),
        ("idle_poll_seconds", "1e-9"),
        ("port", "65536"),
        ("worker_device", "tpu"),
        ("worker_threads", "0"),
        ("log_level", "loud"),
        ("drain_seconds", "1e300"),
        ("max_body_bytes", "9" * 30),
        ("host", "a b"),
        ("fashion_mnist_url", "file:///etc"),
        ("worker_queues", "gpu!"),
        ("worker_queues", "a,a"),
        ("worker_queues", "x" * 64),
        ("redis_url", "amqp://host"),
        ("database_url", "postgresql://host/d?pgbouncer=true"),
    ],
)
def test_nonsense_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TRAIND_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_the_message_is_one_line_with_variable_and_remedy_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("DATABASE_URL", "postgresql://me:hun@ter2@h/d"),
        ("REDIS_URL", "hunter2"),
        ("PORT", "hunter2"),
    ):
        monkeypatch.setenv(f"TRAIND_{name}", value)
    with pytest.raises(InvalidSettings) as refused:
        load()
    for said in ("TRAIND_DATABASE_URL: ", "percent-encode", "TRAIND_REDIS_URL: ", "TRAIND_PORT: ", "correct or unset"):
        assert said in str(refused.value)
    assert "ter2" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(ValidationError) as raw:
        Settings()
    assert "ter2" not in str(raw.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FASHION_MNIST_URL", "http://me:hunter2@host/x", "TRAIND_FASHION_MNIST_URL: it must be .* without a password"),
        ("FASHION_MNIST_URL", "http://[x/", "TRAIND_FASHION_MNIST_URL: it must be http://host/folder"),
        ("FASHION_MNIST_URL", "https://host:1/é", "TRAIND_FASHION_MNIST_URL: it must be http://host/folder"),
        ("HOST", "[::]", "TRAIND_HOST: it must be an address or a name, without brackets"),
        ("WORKER_QUEUES", " , ", "TRAIND_WORKER_QUEUES: no queue is named; name one"),
    ],
)
def test_the_message_says_what_to_write(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"TRAIND_{name}", value)
    with pytest.raises(InvalidSettings, match=said):
        load()


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "DATABASE_URL", "CACHE_DIR"):
        monkeypatch.setenv(f"TRAIND_{name}", "")
    assert (load().port, load().database_url) == (8321, None)
    assert load().cache_dir.name == "traind"


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIND_DATABASE_URL", "postgresql://me:hush@host/db")
    assert "hush" not in repr(Settings())
    assert "hush" not in str(Settings().model_dump())


@pytest.mark.parametrize(
    ("device", "queues", "expected"),
    [("cpu", "", ("default",)), ("cuda", "", ("cuda", "default")), ("cpu", "a, b", ("a", "b"))],
)
def test_queues_follow_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, queues: str, expected: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TRAIND_WORKER_DEVICE", device)
    monkeypatch.setenv("TRAIND_WORKER_QUEUES", queues)
    assert Settings().worker_queues == expected


@pytest.mark.parametrize("value", ["native", "torch", ""])
def test_the_kernel_is_no_setting_but_on_the_page(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """optim_core reads it by itself, when it is imported."""
    monkeypatch.setenv("TRAIND_KERNEL", value)
    assert "kernel" not in Settings().model_dump()
    assert "| `TRAIND_KERNEL` | `native` or `torch`:" in document()


def test_every_setting_says_what_it_means() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]
