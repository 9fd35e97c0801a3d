"""The client against services that are ill, slow, foreign or hostile."""

from __future__ import annotations

import json
import logging
import math
import socket
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.traind.scripted import Step, answer, hang_up, scripted
from traind import ApiError, Client, InvalidSpec, JobSpec
from traind.client.answers import Series

KEY = "td_thisIsTheSecretKey"
JOB = "0199b3c4-1111-7222-8333-444455556666"
SPEC = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "adam"}}


def job(**changes: Any) -> dict[str, Any]:
    return {"id": JOB, "state": "queued", "spec": SPEC, "created_at": "2026-11-22T12:00:00Z", "version": 1, **changes}


def problem(code: str, status: int, **members: Any) -> dict[str, Any]:
    return {
        "type": f"urn:traind:problem:{code}",
        "title": "t",
        "status": status,
        "detail": "d",
        "code": code,
        **members,
    }


def client(url: str, **options: Any) -> Client:
    return Client(url, KEY, **options)


@pytest.mark.parametrize(
    "failure", [hang_up, answer({}, 503), answer(problem("x", 503), 503, Retry_After="0"), answer({}, 502)]
)
def test_a_moment_of_trouble_is_sat_out(failure: Any) -> None:
    with scripted(failure, failure, answer(job())) as service, client(service.url) as c:
        assert c.get(JOB).id == JOB
        assert len(service.seen) == 3


def test_a_repeated_submit_carries_one_key_and_one_body() -> None:
    with scripted(hang_up, answer({}, 503), answer(job(), 202)) as service, client(service.url) as c:
        c.submit(SPEC)
        c.submit(SPEC)
    first, second, third, another = service.seen
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == third.headers["idempotency-key"]
    assert first.headers["idempotency-key"] != another.headers["idempotency-key"]
    assert first.body == second.body == third.body
    assert json.loads(first.body) == SPEC


def test_a_job_spec_is_sent_as_it_was_written() -> None:
    spec = {**SPEC, "training": {"steps": 10}}
    with scripted(answer(job(), 202)) as service, client(service.url) as c:
        c.submit(JobSpec.model_validate(spec), idempotency_key="mine")
    assert json.loads(service.seen[0].body) == spec
    assert service.seen[0].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object()])
def test_what_json_cannot_hold_is_refused_before_it_is_sent(value: Any) -> None:
    with scripted(answer(job())) as service, client(service.url) as c:
        with pytest.raises(InvalidSpec, match="JSON cannot hold"):
            c.submit({**SPEC, "labels": {"a": value}})
        assert service.seen == []


def test_a_refusal_is_not_repeated_and_says_everything() -> None:
    errors = [{"pointer": "/optimizer/lr", "code": "greater_than_equal", "message": "must be at least 0"}]
    document = problem("invalid-spec", 422, errors=errors, pointer="/optimizer/lr", request_id="abc")
    with scripted(answer(document, 422)) as service, client(service.url) as c:
        with pytest.raises(ApiError) as raised:
            c.submit(SPEC)
        assert len(service.seen) == 1
    e = raised.value
    assert (e.code, e.status, e.pointer, e.request_id, e.retryable) == (
        "invalid-spec",
        422,
        "/optimizer/lr",
        "abc",
        False,
    )
    assert [(p.pointer, p.message) for p in e.problems] == [("/optimizer/lr", "must be at least 0")]


def test_nothing_listening_is_unreachable_and_a_lost_answer_is_no_answer() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
        with client(url, retries=1) as c, pytest.raises(ApiError) as raised:
            c.get(JOB)
    assert (raised.value.code, raised.value.status, raised.value.retryable) == ("unreachable", None, True)
    with scripted(hang_up) as service, client(service.url, retries=1) as c, pytest.raises(ApiError) as raised:
        c.submit(SPEC)
    assert raised.value.code == "no-answer"


LOST = {"hung up": hang_up, "502": answer({}, 502), "504": answer({}, 504)}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST.keys())
def test_what_a_repeat_could_do_twice_is_not_repeated_after_a_lost_answer(lost: Step) -> None:
    for verb in (Client.retry, Client.resume):
        with scripted(lost, answer(job())) as service, client(service.url) as c, pytest.raises(ApiError) as raised:
            verb(c, JOB)
        assert (raised.value.retryable, len(service.seen)) == (True, 1)
    for verb in (Client.cancel, Client.pause):
        with scripted(lost, answer(job())) as service, client(service.url) as c:
            assert (verb(c, JOB).id, len(service.seen)) == (JOB, 2)


@pytest.mark.parametrize("status", [429, 503])
def test_what_was_refused_for_a_moment_is_asked_again(status: int) -> None:
    for verb in (Client.retry, Client.resume):
        refused = answer(problem("busy", status), status)
        with scripted(refused, answer(job())) as service, client(service.url) as c:
            assert (verb(c, JOB).id, len(service.seen)) == (JOB, 2)


def test_an_answer_lost_by_a_service_that_then_goes_away_stays_in_doubt() -> None:
    def hang_up_and_leave(handler: BaseHTTPRequestHandler) -> None:
        hang_up(handler)
        handler.server.shutdown()
        handler.server.server_close()

    with scripted(hang_up_and_leave) as service, client(service.url) as c, pytest.raises(ApiError) as raised:
        c.submit(SPEC)
    assert raised.value.code == "no-answer"
    assert "cannot be reached" in str(raised.value)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (answer(b"<html>hello</html>"), "bad-answer"),
        (answer(b"[" * 100_000), "bad-answer"),
        (answer({"unexpected": True}), "bad-answer"),
        (answer([]), "bad-answer"),
        (answer(b"<html>Not Found</html>", 404), "http-404"),
        (answer(b"\xff\xfe", 500), "http-500"),
        (answer({"errors": "x", "code": None}, 400), "http-400"),
    ],
)
def test_what_is_not_traind_is_an_error_with_a_code(step: Any, code: str) -> None:
    with scripted(step) as service, client(service.url, retries=0) as c, pytest.raises(ApiError) as raised:
        c.get(JOB)
    assert raised.value.code == code


def test_a_redirect_is_not_followed_so_the_key_stays() -> None:
    with scripted(answer({})) as elsewhere:
        away = answer({}, 307, Location=f"{elsewhere.url}/v1/jobs")
        with scripted(away) as service, client(service.url) as c, pytest.raises(ApiError) as raised:
            c.submit(SPEC)
        assert raised.value.code == "redirected"
        assert elsewhere.url in str(raised.value)
        assert elsewhere.seen == []


def test_no_proxy_comes_between_this_machine_and_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(answer(job())) as proxy, scripted(answer(job())) as service:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with client(service.url) as c:
            c.get(JOB)
        assert proxy.seen == []
        assert len(service.seen) == 1


def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted(answer(problem("invalid-key", 401), 401)) as service, client(service.url) as c:
        with pytest.raises(ApiError) as raised:
            c.get(JOB)
        assert service.seen[0].headers["authorization"] == f"Bearer {KEY}"
        shown = [repr(c), str(c), repr(vars(c)), repr(raised.value), str(raised.value), caplog.text]
    assert all(KEY not in text for text in shown)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:1", "ftp://h", "http://", "http://u:p@h", "http://h/?k=v", "http://h/#f", "http://[::1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"address") as raised:
        Client(url, KEY)
    assert "u:p" not in str(raised.value)


@pytest.mark.parametrize("key", ["", "td_a b", "td_a\r\nX-Evil:1", "td_a\0", "td_é"])
def test_what_is_no_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as raised:
        Client("http://127.0.0.1:1", key)
    assert not key or key not in str(raised.value)


def test_pages_are_followed_to_the_end_and_only_as_far_as_asked() -> None:
    pages = [answer({"jobs": [job(), job()], "next_cursor": "n/1"}), answer({"jobs": [job()], "next_cursor": None})]
    with scripted(*pages) as service, client(service.url) as c:
        found = c.list(state="running", labels={"a": "b", "c": None}, optimizer="adam", page=2)
        next(found)
        assert len(service.seen) == 1
        assert len(list(found)) == 2
    assert service.seen[0].path == "/v1/jobs?limit=2&state=running&optimizer=adam&label=a%3Ab&label=c"
    assert service.seen[1].path.endswith("&cursor=n%2F1")


def test_events_continue_after_the_last_one_seen() -> None:
    event = {"id": 7, "kind": "started", "created_at": "2026-11-22T12:00:00Z"}
    pages = [answer({"events": [event], "next_after": 7}), answer({"events": [], "next_after": None})]
    with scripted(*pages) as service, client(service.url) as c:
        assert [e.id for e in c.events(JOB, after=3)] == [7]
    assert [seen.path.partition("?")[2] for seen in service.seen] == ["after=3", "after=7"]


def test_a_verb_is_one_call_and_a_refusal_says_what_is_possible() -> None:
    with scripted(answer(job(state="paused"))) as service, client(service.url) as c:
        assert {c.cancel(JOB).state, c.pause(JOB).state, c.resume(JOB).state, c.retry(JOB, start="start").state}
    assert [(seen.method, seen.path.removeprefix(f"/v1/jobs/{JOB}")) for seen in service.seen] == [
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/retry?from=start"),
    ]
    conflict = answer(problem("state-conflict", 409, state="succeeded", possible=[]), 409)
    with scripted(conflict) as service, client(service.url) as c, pytest.raises(ApiError) as raised:
        c.pause(JOB)
    assert (raised.value.code, raised.value.status, len(service.seen)) == ("state-conflict", 409, 1)


def test_wait_reports_each_version_once_and_returns_the_end() -> None:
    answers = [job(version=1), job(version=1), job(version=2, state="running"), job(version=3, state="diverged")]
    versions = []
    with scripted(*map(answer, answers)) as service, client(service.url) as c:
        end = c.wait(JOB, lambda j: versions.append(j.version), poll_seconds=0.001)
    assert (end.state, versions) == ("diverged", [1, 2, 3])


def test_wait_gives_up_at_its_time() -> None:
    with (
        scripted(answer(job())) as service,
        client(service.url) as c,
        pytest.raises(TimeoutError, match="still queued"),
    ):
        c.wait(JOB, timeout_seconds=0.05, poll_seconds=0.01)


def test_an_id_that_is_none_asks_nobody() -> None:
    with scripted(answer(job())) as service, client(service.url) as c:
        with pytest.raises(ApiError, match="not a job's id"):
            c.get("../../v1/datasets")
        assert service.seen == []


def test_an_answer_of_a_newer_service_keeps_its_fields() -> None:
    sent = job(progress={"step": 3, "total_steps": 9, "novel": [1]}, novelty={"x": 1})
    with scripted(answer(sent)) as service, client(service.url) as c:
        assert c.get(JOB).document() == sent


def test_values_are_what_they_were_before_json() -> None:
    columns = {name: [1.0, None, None] for name in ("first", "last", "min", "max", "mean")}
    buckets = {"step0": [1, 2, 3], "step1": [1, 2, 3], "count": [1, 1, 1], "nan_count": [0, 0, 1], **columns}
    series = Series.model_validate({"key": "loss", "count": 3, "buckets": buckets, "nonfinite": [["last", 1, "-inf"]]})
    assert series.values("last")[:2] == [1.0, -math.inf]
    assert math.isnan(series.values("last")[2])
    assert math.isnan(series.values("first")[1])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ALL_PROXY", "socks5://me:hunter2@127.0.0.1:1", "socksio"),
        ("HTTPS_PROXY", "foo://me:hunter2@h", "ALL_PROXY"),
        ("SSL_CERT_FILE", "/nonexistent/ca", "SSL_CERT_FILE"),
        ("SSL_CERT_FILE", "/etc/passwd", "SSL_CERT_FILE"),
    ],
)
def test_an_environment_that_keeps_it_from_calling(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ApiError, match=said) as refused:
        Client("https://traind.example", KEY)
    assert refused.value.code == "client-environment"
    assert "hunter2" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
