"""Settings come from the environment, refuse nonsense by name, and their page is current."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.settings import Settings
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
        ("port", "65536"),
        ("worker_device", "tpu"),
        ("worker_threads", "0"),
        ("log_level", "loud"),
    ],
)
def test_nonsense_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TRAIND_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


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
