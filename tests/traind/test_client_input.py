"""What the client refuses before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from traind.cli.errors import Refused
from traind.cli.jobs import _labels
from traind.client import Client
from traind.errors import ApiError


@pytest.mark.parametrize("key", ["", "a" * 256, "schl\u00fcssel", "a\nb", "\x00"])
def test_an_idempotency_key_that_the_service_refuses_is_not_sent(key: str) -> None:
    with Client("http://127.0.0.1:9", "td_key", retries=0) as client, pytest.raises(ApiError) as caught:
        client.submit({}, idempotency_key=key)
    assert caught.value.code == "invalid-parameter"


@pytest.mark.parametrize("key", ["", "sec\u00fcret", "sec\nret", "sec ret", b"secret", None, 5])
def test_a_key_that_is_none_is_not_shown(key: Any) -> None:
    with pytest.raises(ValueError, match="the API key is") as caught:
        Client("http://127.0.0.1:9", key)
    assert "ret" not in str(caught.value)


def test_a_label_cannot_have_two_values() -> None:
    with pytest.raises(Refused, match="cannot be both b and c"):
        _labels(["a=b", "a=c"])
    assert _labels(["a", "a=b", "a=b"]) == {"a": "b"}
