"""Downloads a checkpoint's content to a file: streamed, resumed if the connection breaks, verified, then renamed.

The bytes go to a temporary file beside the target, which replaces the target only when its SHA-256 is the one that
the service gave as ETag. Whatever else happens, the target stays as it was and the temporary file goes.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx2

from traind.client.http import MAX_RETRY_AFTER_SECONDS, Http, as_api_error
from traind.errors import ApiError

ProgressCallback = Callable[[int, int | None], None]
RESUMES_WITHOUT_PROGRESS = 5


def download(http: Http, api_path: str, target: Path, *, part: str, progress: ProgressCallback | None) -> None:
    """Write the content at `api_path` to `target`. Raises ApiError, and OSError if the file cannot be written."""
    partial = target.with_name(f".{_cut(target.name)}.{secrets.token_hex(6)}.partial")
    try:
        with partial.open("xb") as file:
            _Transfer(http, api_path, part, file, progress).run()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _cut(name: str) -> str:
    """The start of a file's name, short enough that more fits into the 255 bytes that file systems allow."""
    return os.fsencode(name)[:200].decode(errors="ignore")


@dataclass
class _Transfer:
    http: Http
    api_path: str
    part: str
    file: BinaryIO
    progress: ProgressCallback | None
    etag: str | None = None
    done: int = 0
    total: int | None = None
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def run(self) -> None:
        failures = 0
        while True:
            before = self.done
            try:
                self._receive()
                break
            except (httpx2.TransportError, ApiError) as e:
                failure = as_api_error(e, self.http.url)
                failures = 1 if self.done > before else failures + 1
                if not failure.retryable or failures > RESUMES_WITHOUT_PROGRESS:
                    raise failure from e
                time.sleep(min(failure.retry_after_seconds or 0.1 * 2**failures, MAX_RETRY_AFTER_SECONDS))
        self._verify()

    def _receive(self) -> None:
        headers = {"Accept-Encoding": "identity"}
        if self.done and self.etag:
            headers |= {"Range": f"bytes={self.done}-", "If-Range": self.etag}
        with self.http.stream(self.api_path, params=[("part", self.part)], headers=headers) as answer:
            if answer.status_code != httpx2.codes.PARTIAL_CONTENT:
                self._start_over(answer)
            for chunk in answer.iter_raw():
                self.file.write(chunk)
                self.digest.update(chunk)
                self.done += len(chunk)
                if self.progress:
                    self.progress(self.done, self.total)

    def _start_over(self, answer: httpx2.Response) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.digest = hashlib.sha256()
        self.done = 0
        self.etag = answer.headers.get("ETag")
        length = answer.headers.get("Content-Length", "")
        self.total = int(length) if length.isdigit() else None

    def _verify(self) -> None:
        expected = re.fullmatch(r'(?:W/)?"?(?:sha256:)?([0-9a-f]{64})"?', self.etag or "")
        if expected is None:
            raise ApiError("unverifiable-download", "the service sent no SHA-256 with the content; nothing was written")
        if self.digest.hexdigest() != expected[1]:
            raise ApiError(
                "corrupt-download",
                "the content does not match its SHA-256; nothing was written; try again",
                retryable=True,
            )
