"""`traind verify`, `audit` and `checks`: against a whole service, and against scripted results that it never gives."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.api.test_checks import AUDITED, VERIFIED
from tests.traind.commands import Here, environment
from tests.traind.scripted import Scripted, answer, scripted
from traind import ApiError
from traind.client import AuditResult, Client, Job, VerifyResult

JOB = "0199b3c4-1111-7222-8333-444455556666"
CHECK = "0199b3c5-1111-7222-8333-444455556666"
WAITING: dict[str, Any] = {
    "id": CHECK,
    "kind": "verify",
    "state": "queued",
    "job_id": JOB,
    "checkpoint_id": 3,
    "from_checkpoint_id": 2,
    "from_step": 46,
    "to_step": 92,
    "steps_total": 46,
    "created_at": "2026-11-22T12:00:00Z",
    "version": 1,
}
RUNNING = WAITING | {"state": "running", "phase": "train", "steps_done": 20, "version": 2}


def done(result: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    kind = "audit" if result and "optimizer" in result else "verify"
    tagged = None if result is None else result | {"kind": kind}
    return WAITING | {"kind": kind, "state": "succeeded", "result": tagged, "version": 9, **changes}


def env_of(service: Scripted) -> dict[str, str]:
    return {"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"}


def run(here: Here, ended: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    with scripted(answer(WAITING, 202), answer(RUNNING), answer(ended)) as service:
        return here(*arguments, env=env_of(service))


def test_every_checkpoint_is_equal(here: Here, env: dict[str, str], finished: Job, client: Client) -> None:
    first, second, last = client.checkpoints(finished.id)
    for target, start in (((finished.id,), "step 92"), ((str(first.id),), "the start")):
        ended = here("verify", *target, env=env)
        assert ended.returncode == 0, ended.stderr
        assert re.search(rf"checkpoint \d+ \(step \d+\) equals the replay from {start}: 17 tensors", ended.stdout)
        assert "succeeded  step 46/46" in ended.stderr
    as_json = json.loads(here("verify", finished.id, "--step", "92", "-o", "json", env=env).stdout)
    assert (as_json["checkpoint_id"], as_json["from_checkpoint_id"]) == (second.id, first.id)
    assert as_json["result"]["equal"]
    listed = json.loads(here("checks", finished.id, "-o", "json", env=env).stdout)
    assert [check["checkpoint_id"] for check in listed[:3]] == [second.id, first.id, last.id]
    table = here("checks", finished.id, env=env).stdout.splitlines()
    assert len(table) == len(listed) + 1
    assert table[1].split()[:7] == [as_json["id"], "verify", "succeeded", str(second.id), "46", "92", "equal"]


def test_an_audit_shows_every_tensor(here: Here, env: dict[str, str], finished: Job) -> None:
    ended = here("audit", finished.id[:23], "--steps", "12", env=env)
    assert ended.returncode == 0, ended.stderr
    assert "after 12 steps" in ended.stdout
    assert "state/optimizer/3.bias/exp_avg_sq" in ended.stdout or "every bit" in ended.stdout
    document = json.loads(here("audit", finished.id, "--steps", "12", "-o", "json", env=env).stdout)
    assert (document["to_step"], document["steps_total"], document["result"]["kind"]) == (12, 24, "audit")


def test_asking_without_waiting_prints_the_id(here: Here, env: dict[str, str], finished: Job, client: Client) -> None:
    ended = here("verify", finished.id, "--no-wait", env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    check = client.wait_check(ended.stdout.strip(), timeout_seconds=60)
    assert isinstance(check.result, VerifyResult)
    assert check.result.equal
    audit = json.loads(here("audit", finished.id, "--no-wait", "-o", "json", env=env).stdout)
    assert isinstance(client.wait_check(audit["id"], timeout_seconds=60).result, AuditResult)


def test_a_difference_is_told_and_ends_with_1(here: Here) -> None:
    ended = run(here, done(VERIFIED), "verify", "3")
    assert ended.returncode == 1
    said = ended.stdout.splitlines()
    assert (
        said[0]
        == "checkpoint 3 (step 92) differs from the replay from step 46: 1 of 3 tensors, the first is model/1.weight"
    )
    assert "  the SHA-256 of the file state differs from the stored one" in said
    assert "  the file state cannot be read: header too large" in said
    assert "the replay ran in a different environment, so a difference does not prove damage:" in said
    assert "  threads: was 1, is 2" in said
    assert said[-1].split() == ["model/1.weight", "2", "6", "[0,", "1]", "0.5"]
    assert ended.stderr.splitlines() == [
        f"verify {CHECK}  train  step 20/46",
        f"verify {CHECK}  succeeded  step 0/46",
    ]


def test_everything_that_can_differ_has_a_line(here: Here) -> None:
    found = VERIFIED | {"ended": "early stopping ended it after step 22", "rest": ["state/step: stored 1, replayed 2"]}
    found["differences"] = [
        {"tensor": "model/a", "problem": "missing"},
        {"tensor": "model/b", "problem": "unexpected"},
        {"tensor": "model/c", "problem": "kind", "stored": "float64 [2]", "replayed": "float32 [2]"},
    ]
    text = run(here, done(found), "verify", "3").stdout
    for line in (
        "the replay did not come so far: early stopping ended it after step 22",
        "model/a is missing",
        "model/b should not be there",
        "model/c has another shape or type",
        "state/step: stored 1, replayed 2",
    ):
        assert f"  {line}\n" in text


@pytest.mark.parametrize(
    ("largest", "options", "code"),
    [(5, (), 0), (5, ("--max-ulp", "5"), 0), (5, ("--max-ulp", "4"), 1), (None, ("--max-ulp", "4"), 1), (None, (), 0)],
)
def test_an_audit_ends_with_1_where_it_is_further_apart(
    here: Here, largest: int | None, options: tuple[str, ...], code: int
) -> None:
    tensor = AUDITED["tensors"][0] | {"n_different": 1, "largest_ulp": largest, "largest_difference": 0.5}  # type: ignore[index]
    found = AUDITED | {"equal": False, "n_different": 1, "largest_ulp": largest, "tensors": [tensor]}
    found |= {"first_different_step": 3}
    ended = run(here, done(found), "audit", JOB, *options)
    assert ended.returncode == code
    assert "1 of 1 tensors, for the first time in step 3" in ended.stdout
    assert ("at most 5 ulp apart" if largest else "NaN beside a number") in ended.stdout
    assert "model/w" in ended.stdout.splitlines()[-1]


def test_an_audit_of_equal_bits(here: Here) -> None:
    ended = run(here, done(AUDITED), "audit", JOB, "--max-ulp", "0")
    assert ended.returncode == 0
    assert "are equal after 5 steps: 1 tensors, every bit" in ended.stdout


@pytest.mark.parametrize(("state", "code"), [("failed", 1), ("cancelled", 4)])
def test_a_check_that_did_not_succeed(here: Here, state: str, code: int) -> None:
    error = {"code": "checkpoint-corrupt", "message": "checkpoint 2 is damaged itself; verify checkpoint 2"}
    ended = run(here, done(None, state=state, error=error if state == "failed" else None), "verify", "3")
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ("verify checkpoint 2" in ended.stderr) == (state == "failed")


def test_a_refusal_says_a_thing_once(here: Here) -> None:
    why = "at most 10,000 are done"
    problem = {"code": "audit-too-large", "detail": f"steps: {why}", "errors": [{"parameter": "steps", "message": why}]}
    with scripted(answer(problem, 422)) as service:
        ended = here("audit", JOB, "--steps", "99999", env=env_of(service))
    assert (ended.returncode, ended.stderr.count(why)) == (2, 1)


def test_an_interrupt_leaves_the_check_running() -> None:
    with scripted(answer(WAITING, 202), answer(RUNNING)) as service:
        process = subprocess.Popen(
            [sys.executable, "-m", "traind", "verify", "3"],
            env=environment(**env_of(service)),
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"`traind checks {JOB}`" in said
    assert f"`traind cancel {CHECK}` ends it" in said


def test_a_number_is_a_checkpoint_and_a_leading_zero_a_job(here: Here) -> None:
    with scripted(answer(WAITING, 202)) as service:
        here("verify", "4711", "--no-wait", env=env_of(service))
        assert [(seen.method, seen.path) for seen in service.seen] == [("POST", "/v1/checkpoints/4711/verify")]
        assert service.seen[0].headers["idempotency-key"]
    with scripted(answer({"jobs": [], "next_cursor": None})) as service:
        ended = here("verify", "0199", "--no-wait", env=env_of(service))
        assert (ended.returncode, service.seen[0].path.partition("?")[0]) == (2, "/v1/jobs")


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("verify", "9999999"), 1, "`traind checkpoints JOB` lists"),
        (("verify", "9" * 30), 1, "`traind checkpoints JOB` lists"),
        (("verify", "JOB", "--step", "7"), 1, "it has 46, 92, 138"),
        (("verify", "5", "--step", "7"), 2, "--step chooses among a job's checkpoints"),
        (("verify", "-1"), 2, "No such option"),
        (("verify", "nonsense"), 2, "is not a job's id"),
        (("audit", "JOB", "--steps", "0"), 2, "steps: must be at least 1"),
        (("audit", "JOB", "--steps", "-5"), 2, "steps: must be at least 1"),
        (("audit", "JOB", "--steps", "139"), 2, "the job has only 138 steps"),
        (("audit", "JOB", "--steps", "1.5"), 2, "Invalid value for '--steps'"),
        (("audit", "JOB", "--max-ulp", "-1"), 2, "greater than or equal to 0"),
        (("audit", "00000000-0000-7000-8000-000000000000"), 1, "`traind ls` lists the jobs"),
        (("checks", "00000000-0000-7000-8000-000000000000"), 1, "`traind ls` lists the jobs"),
    ],
)
def test_what_cannot_be_checked_says_why(
    here: Here, env: dict[str, str], finished: Job, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    ended = here(*(finished.id if a == "JOB" else a for a in arguments), env=env)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert reason in ended.stderr.replace("\n", " ")


def test_what_a_result_says_cannot_steer_the_terminal(here: Here) -> None:
    evil = "\x1b[2J\x9b31m\u202eevil"
    found = VERIFIED | {"reasons": [evil], "rest": [evil], "unreadable": {"model": evil}}
    found["differences"] = [VERIFIED["differences"][0] | {"tensor": evil}]  # type: ignore[index]
    ended = run(here, done(found), "verify", "3")
    assert "evil" in ended.stdout
    assert not {"\x1b", "\x9b", "\u202e"} & set(ended.stdout + ended.stderr)


def test_the_client_asks_waits_and_cancels() -> None:
    steps = (answer(WAITING, 202), answer(RUNNING), answer(RUNNING), answer(done(VERIFIED)))
    with scripted(*steps) as service, Client(service.url, "td_x") as client:
        seen: list[int] = []
        asked = client.verify(3, idempotency_key="mine")
        ended = client.wait_check(asked.id, lambda check: seen.append(check.version), poll_seconds=0.01)
        assert (ended.final, seen) == (True, [2, 9])
        client.cancel_check(CHECK)
        client.audit(JOB, steps=7)
        with pytest.raises(ApiError, match="is not a check's id"):
            client.check("../jobs")
    first, *_, cancel, audit = service.seen
    assert (first.path, first.headers["idempotency-key"], first.body) == ("/v1/checkpoints/3/verify", "mine", b"")
    assert (cancel.method, cancel.path) == ("POST", f"/v1/checks/{CHECK}/cancel")
    assert (audit.method, audit.path) == ("POST", f"/v1/jobs/{JOB}/audit?steps=7")


def test_waiting_for_a_check_has_an_end() -> None:
    with (
        scripted(answer(RUNNING)) as service,
        Client(service.url, "td_x") as client,
        pytest.raises(TimeoutError, match=f"check {CHECK} is still running"),
    ):
        client.wait_check(CHECK, timeout_seconds=0.05, poll_seconds=0.01)
