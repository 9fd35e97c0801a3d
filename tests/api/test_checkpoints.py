"""Checkpoints over HTTP: the list, and content that arrives whole, in ranges, conditionally, or not yet."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx2
import pytest

from jobs.lifecycle.work import crash, note_no_room
from tests.api.project import Project, sha256
from tests.jobs.scenario import ERROR

MODEL = random.Random(0).randbytes(2_500_003)
STATE = b"rest"
SIZE = len(MODEL)


@dataclass(frozen=True)
class Download:
    http: httpx2.Client
    path: str
    etag: str

    def get(self, **headers: str) -> httpx2.Response:
        return self.http.get(self.path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def download(project: Project) -> Download:
    project.submit()
    checkpoint = project.checkpoint(project.start(), step=5, model=MODEL, state=STATE)
    return Download(project.http, f"/v1/checkpoints/{checkpoint}/content", f'"{sha256(MODEL).hex()}"')


def test_a_job_says_why_its_checkpoints_are_not_taken_in(project: Project) -> None:
    job, lease = project.submit(), project.start()

    def no_room() -> str | None:
        said: str | None = project.http.get(job["links"]["self"]).json()["progress"]["no_room"]
        return said

    assert no_room() is None
    with project.engine.begin() as conn:
        note_no_room(conn, lease, step=5, kind="interval", reason="the disk is full")
    assert no_room() == "the disk is full"
    project.checkpoint(lease, step=10, model=MODEL[:1_000], state=STATE)
    assert no_room() is None
    with project.engine.begin() as conn:
        note_no_room(conn, lease, step=15, kind="interval", reason="the disk is full")
        crash(conn, lease, error=ERROR, log=None)
    assert no_room() is None


def test_the_list_and_one_checkpoint(project: Project) -> None:
    job, lease = project.submit(), project.start()
    ids = [project.checkpoint(lease, step=step, model=MODEL[:1_000], state=STATE) for step in (5, 10)]
    found = project.http.get(job["links"]["checkpoints"]).json()["checkpoints"]
    assert [(c["id"], c["step"]) for c in found] == list(zip(ids, (5, 10), strict=True))
    first = found[0]
    assert first == project.http.get(first["links"]["self"]).json()
    assert first["model"] == {"size": 1_000, "sha256": sha256(MODEL[:1_000]).hex()}
    assert (first["complete"], first["kind"], first["job_id"]) == (True, "interval", job["id"])
    assert first["summary"]["last"] == {"val/loss": None, "val/accuracy": 0.5}
    assert first["summary"]["nonfinite"] == {"val/loss": "nan"}
    assert project.http.get(first["links"]["model"]).content == MODEL[:1_000]
    assert project.http.get(first["links"]["state"]).content == STATE
    assert project.http.get(job["links"]["self"]).json()["progress"]["saved_step"] == 10


def test_what_was_trained_again_is_listed_only_on_request(project: Project) -> None:
    job, lease = project.submit(), project.start()
    saved = project.checkpoint(lease, step=5)
    project.begin_checkpoint(lease, step=10, model=b"half", state=b"")
    with project.engine.begin() as conn:
        crash(conn, lease, error=ERROR, log=None)
    project.start()
    listed = project.http.get(job["links"]["checkpoints"]).json()["checkpoints"]
    everything = project.http.get(job["links"]["checkpoints"], params={"attempts": "all"}).json()["checkpoints"]
    assert [c["id"] for c in listed] == [saved]
    assert [(c["step"], c["complete"]) for c in everything] == [(5, True), (10, False)]


def test_content_arrives_whole(download: Download) -> None:
    answer = download.get()
    assert answer.status_code == 200
    assert answer.content == MODEL
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["ETag"] == download.etag
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].endswith('-step-5-model.safetensors"')


def test_head_says_what_get_would_send(download: Download) -> None:
    answer = download.http.head(download.path, headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (200, b"")
    whole = download.get().headers
    for name in ("Content-Length", "ETag", "Accept-Ranges", "Content-Type", "Content-Disposition"):
        assert answer.headers[name] == whole[name]


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999999", 0, 1_000_000),
        ("bytes=999999-1000000", 999_999, 1_000_001),
        ("bytes=1000000-", 1_000_000, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-9999999999", 0, SIZE),
        (f"bytes=5-{'9' * 18}", 5, SIZE),
        ("Bytes=1-2", 1, 3),
    ],
)
def test_a_range_is_that_part_of_the_content(download: Download, header: str, start: int, stop: int) -> None:
    answer = download.get(Range=header)
    assert answer.status_code == 206
    assert answer.content == MODEL[start:stop]
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=-0", f"bytes={'9' * 18}-"])
def test_a_range_outside_the_content(download: Download, header: str) -> None:
    answer = download.get(Range=header)
    assert (answer.status_code, answer.json()["code"]) == (416, "range-not-satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "header", ["bytes=0-1,5-6", "lines=1-2", "bytes=x-y", "bytes=9-1", "bytes=-", f"bytes={'9' * 50}-", ""]
)
def test_what_is_not_one_range_is_ignored(download: Download, header: str) -> None:
    assert download.get(Range=header).status_code == 200


def test_a_broken_download_goes_on_where_it_broke(download: Download) -> None:
    with download.http.stream("GET", download.path) as answer:
        begun = next(answer.iter_raw(300_000))
    rest = download.get(Range=f"bytes={len(begun)}-", If_Range=answer.headers["ETag"])
    assert begun + rest.content == MODEL
    changed = download.get(Range=f"bytes={len(begun)}-", If_Range='"another"')
    assert (changed.status_code, changed.content) == (200, MODEL)


def test_known_content_is_not_sent_again(download: Download) -> None:
    answer = download.get(If_None_Match=download.etag)
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", download.etag)


def test_an_incomplete_checkpoint_cannot_be_read_yet(project: Project) -> None:
    project.submit()
    ref = project.begin_checkpoint(project.start(), step=5, model=MODEL, state=STATE)
    answer = project.http.get(f"/v1/checkpoints/{ref.id}/content")
    assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint-incomplete")
    assert project.http.get(f"/v1/checkpoints/{ref.id}").json()["complete"] is False


def test_an_empty_file_has_no_ranges(project: Project) -> None:
    project.submit()
    path = f"/v1/checkpoints/{project.checkpoint(project.start(), step=5, model=b'')}/content"
    assert project.http.get(path).content == b""
    assert project.http.get(path, headers={"Range": "bytes=0-"}).status_code == 416
