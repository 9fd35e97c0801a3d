"""Downloads: resumed where they broke, verified, and never half there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.traind.scripted import answer, break_off, hang_up, scripted
from traind import ApiError, Client

CONTENT = bytes(range(256)) * 1_000
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
CUT = 100_000


def rest(start: int, **headers: str) -> Any:
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    return answer(CONTENT[start:], 206, ETag=ETAG, Content_Range=span, **headers)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def download(url: str, target: Path, **options: Any) -> Path:
    with Client(url, "td_key") as client:
        return client.download(7, target, **options)


def test_a_download_is_whole_and_tells_how_far_it_is(target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with scripted(answer(CONTENT, ETag=ETAG)) as service:
        assert download(service.url, target, progress=lambda *at: told.append(at)) == target
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert service.seen[0].path == "/v1/checkpoints/7/content?part=model"
    assert service.seen[0].headers["accept-encoding"] == "identity"


def test_a_name_of_many_bytes_is_written_to(tmp_path: Path) -> None:
    with scripted(answer(CONTENT, ETag=ETAG)) as service:
        target = download(service.url, tmp_path / ("é" * 127))
    assert [found.name for found in tmp_path.iterdir()] == [target.name]


def test_a_broken_connection_is_resumed_where_it_broke(target: Path) -> None:
    with scripted(break_off(CONTENT[:CUT], len(CONTENT), ETag=ETAG), hang_up, rest(CUT)) as service:
        download(service.url, target, part="state")
    assert target.read_bytes() == CONTENT
    for again in service.seen[1:]:
        assert again.headers["range"] == f"bytes={CUT}-"
        assert again.headers["if-range"] == ETAG


def test_a_service_that_ignores_the_range_is_read_from_the_start(target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    short = CONTENT[: CUT // 2]
    whole = answer(short, ETag=f'"{hashlib.sha256(short).hexdigest()}"')
    with scripted(break_off(CONTENT[:CUT], len(CONTENT), ETag=ETAG), whole) as service:
        download(service.url, target, progress=lambda *at: told.append(at))
    assert target.read_bytes() == short
    assert told[-1] == (len(short), len(short))


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([answer(CONTENT[:-1] + b"?", ETag=ETAG)], "corrupt-download"),
        ([answer(CONTENT)], "unverifiable-download"),
        ([answer(CONTENT, ETag='"abc"')], "unverifiable-download"),
        ([answer({"code": "not-found", "detail": "there is none"}, 404)], "not-found"),
        ([break_off(CONTENT[:CUT], len(CONTENT), ETag=ETAG), answer({"code": "not-found"}, 404)], "not-found"),
    ],
)
def test_a_download_that_fails_leaves_what_was_there(target: Path, steps: list[Any], code: str) -> None:
    target.write_text("the old one")
    with scripted(*steps) as service, pytest.raises(ApiError) as raised:
        download(service.url, target)
    assert raised.value.code == code
    assert target.read_text() == "the old one"
    assert list(target.parent.iterdir()) == [target]


def test_an_interrupted_download_leaves_nothing(target: Path) -> None:
    def interrupt(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with scripted(answer(CONTENT, ETag=ETAG)) as service, pytest.raises(KeyboardInterrupt):
        download(service.url, target, progress=interrupt)
    assert list(target.parent.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with scripted(answer(CONTENT, ETag=ETAG)) as service, pytest.raises(FileNotFoundError):
        download(service.url, tmp_path / "missing" / "model.safetensors")
    assert service.seen == []
