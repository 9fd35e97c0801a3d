"""What the client refuses before anything is sent."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.traind.commands import Here
from tests.traind.scripted import answer, scripted
from traind.cli.errors import Refused
from traind.cli.selection import labels
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


@pytest.mark.parametrize("key", ["td_sec\nret", "td_sec\u00fcret", "td_sec\udcffret", "td_sec ret"])
def test_the_cli_says_so_in_one_line(here: Here, key: str) -> None:
    done = here("ls", env={"TRAIND_URL": "http://127.0.0.1:1", "TRAIND_API_KEY": key})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("traind: TRAIND_URL and TRAIND_API_KEY: the API key is")
    assert len(done.stderr.splitlines()) == 1
    assert "ret" not in done.stderr


def test_the_cli_drops_the_line_end_of_a_key_from_a_file(here: Here) -> None:
    with scripted(answer({"jobs": [], "next_cursor": None})) as service:
        assert here("ls", env={"TRAIND_URL": service.url, "TRAIND_API_KEY": " td_x\r\n"}).returncode == 0
    assert service.seen[0].headers["authorization"] == "Bearer td_x"


@pytest.mark.parametrize(
    ("keys", "sent"), [("val/loss", ["val/loss"]), (["val/loss", "lr"], ["val/loss", "lr"]), ((), [])]
)
def test_one_metric_key_may_be_given_as_it_is(keys: Any, sent: list[str]) -> None:
    job = "0190a0d2-7c00-7000-8000-000000000000"
    with scripted(answer({"job_id": job, "series": []})) as service, Client(service.url, "td_x") as client:
        client.metrics(job, keys=keys)
    assert parse_qs(urlsplit(service.seen[0].path).query).get("key", []) == sent


def test_a_label_cannot_have_two_values() -> None:
    with pytest.raises(Refused, match="cannot be both b and c"):
        labels(["a=b", "a=c"])
    assert labels(["a", "a=b", "a=b"]) == {"a": "b"}
