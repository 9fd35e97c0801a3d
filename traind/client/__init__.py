"""The Python client of a traind service.

    with Client("http://127.0.0.1:8321", "td_…") as client:
        job = client.submit({"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "adam"}})
        job = client.wait(job.id)

Calls raise `traind.errors.ApiError`. Each is repeated with back-off where the service was out of reach for a moment.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from traind.client.answers import Answer, CatalogueEntry, Checkpoint, Event, Job, Metrics, Part
from traind.client.download import ProgressCallback, download
from traind.client.http import Http
from traind.errors import ApiError, InvalidSpec

if TYPE_CHECKING:
    from traind.spec import JobSpec

__all__ = ["CatalogueEntry", "Checkpoint", "Client", "Event", "Job", "Metrics"]

JobId = str | uuid.UUID
PAGE = 100
OUT_OF_REACH_SECONDS = 60.0


class Client:
    """Calls to one service with one key. Usable as a context manager, and from several threads."""

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 30.0, retries: int = 4) -> None:
        """Raises ValueError where the address or the key cannot be one. Connects to nothing yet."""
        self._http = Http(url, api_key, timeout_seconds=timeout_seconds, retries=retries)

    @property
    def url(self) -> str:
        return self._http.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job. The same key with the same spec is the same job, however often it is sent.

        Without a key each call has its own, so that its own repeats make one job. Raises InvalidSpec for what JSON
        cannot hold, ApiError (status 422, with `problems`) for a spec that cannot run.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return _read(Job, self._http.json("POST", "/v1/jobs", content=_body(spec), headers=headers))

    def get(self, job_id: JobId) -> Job:
        return _read(Job, self._http.json("GET", _job_path(job_id)))

    def list(
        self,
        *,
        state: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        optimizer: str | None = None,
        page: int = PAGE,
    ) -> Iterator[Job]:
        """Jobs, newest first, fetched a page at a time. A label with the value None matches any value."""
        params = [("limit", str(page))]
        params += [("state", state)] if state else []
        params += [("optimizer", optimizer)] if optimizer else []
        params += [("label", key if value is None else f"{key}:{value}") for key, value in (labels or {}).items()]
        return (_read(Job, item) for item in self._pages("/v1/jobs", params))

    def cancel(self, job_id: JobId) -> Job:
        """Ask for the job's end. A job that is already cancelled is returned as it is."""
        try:
            return _read(Job, self._http.json("POST", f"{_job_path(job_id)}/cancel"))
        except ApiError as e:
            job = self.get(job_id) if e.status == 409 else None
            if job is None or job.state != "cancelled":
                raise
            return job

    def events(self, job_id: JobId, *, after: int | None = None) -> Iterator[Event]:
        """The job's record, oldest first; with `after`, only what follows that event."""
        params = [] if after is None else [("after", str(after))]
        return (_read(Event, item) for item in self._pages(f"{_job_path(job_id)}/events", params))

    def metrics(
        self,
        job_id: JobId,
        *,
        keys: Iterable[str] = (),
        step_from: int | None = None,
        step_to: int | None = None,
        max_points: int | None = None,
        attempts: str | None = None,
    ) -> Metrics:
        """Metric curves, all keys where none is given, in at most `max_points` buckets a key."""
        params = [("key", key) for key in keys]
        numbers = {"step_from": step_from, "step_to": step_to, "max_points": max_points}
        params += [(name, str(value)) for name, value in numbers.items() if value is not None]
        params += [("attempts", attempts)] if attempts else []
        return _read(Metrics, self._http.json("GET", f"{_job_path(job_id)}/metrics", params=params))

    def checkpoints(self, job_id: JobId) -> tuple[Checkpoint, ...]:
        """The job's complete checkpoints, oldest first."""
        found = self._pages(f"{_job_path(job_id)}/checkpoints", [])
        return tuple(sorted((_read(Checkpoint, item) for item in found), key=lambda c: c.step))

    def checkpoint(self, checkpoint_id: int) -> Checkpoint:
        return _read(Checkpoint, self._http.json("GET", f"/v1/checkpoints/{int(checkpoint_id)}"))

    def download(
        self, checkpoint_id: int, path: str | Path, *, part: Part = "model", progress: ProgressCallback | None = None
    ) -> Path:
        """Write the checkpoint's weights (or, for part "state", the rest) to a safetensors file, verified, and return its path.

        `progress(done_bytes, total_bytes)` is called as it grows. An existing file is replaced, and only by a whole one.
        """
        target = Path(path)
        download(self._http, f"/v1/checkpoints/{int(checkpoint_id)}/content", target, part=part, progress=progress)
        return target

    def wait(
        self,
        job_id: JobId,
        on_update: Callable[[Job], None] | None = None,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 0.3,
    ) -> Job:
        """Wait until the job has ended and return it. `on_update` is called with each version of the job that was seen.

        A service that is out of reach is waited for, for a minute. Raises TimeoutError after `timeout_seconds`.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        version = None
        while True:
            job = self._get_patiently(job_id)
            if on_update and job.version != version:
                on_update(job)
            version = job.version
            if job.final:
                return job
            if deadline is not None and time.monotonic() + poll_seconds > deadline:
                raise TimeoutError(f"job {job_id} is still {job.state} after {timeout_seconds} seconds")
            time.sleep(poll_seconds)

    def datasets(self) -> tuple[CatalogueEntry, ...]:
        return self._catalogue("datasets")

    def models(self) -> tuple[CatalogueEntry, ...]:
        return self._catalogue("models")

    def optimizers(self) -> tuple[CatalogueEntry, ...]:
        return self._catalogue("optimizers")

    def _catalogue(self, kind: str) -> tuple[CatalogueEntry, ...]:
        return tuple(_read(CatalogueEntry, item) for item in self._pages(f"/v1/{kind}", []))

    def _get_patiently(self, job_id: JobId) -> Job:
        give_up_at = time.monotonic() + OUT_OF_REACH_SECONDS
        while True:
            try:
                return self.get(job_id)
            except ApiError as e:
                if not e.retryable or time.monotonic() > give_up_at:
                    raise
                time.sleep(1.0)
