"""`Client`: every call to a traind service, typed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import ValidationError

from traind.client import calls
from traind.client.answers import (
    Answer,
    CatalogueEntry,
    Check,
    Checkpoint,
    DryRun,
    Event,
    Job,
    Metrics,
    Part,
    Start,
    Worker,
)
from traind.client.download import ProgressCallback, download
from traind.client.http import Http
from traind.client.waiting import OnSilence, wait, wait_all
from traind.errors import ApiError

if TYPE_CHECKING:
    from traind.spec import JobSpec

A = TypeVar("A", bound=Answer)
JobId = str | uuid.UUID
POLL_SECONDS = 3.0


class Client:
    """Calls one service with one key. Can be used as a context manager and from several threads."""

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 30.0, retries: int = 4) -> None:
        """Raises ValueError if the address or the key is not valid. Does not connect yet."""
        self._http = Http(url, api_key, timeout_seconds=timeout_seconds, retries=retries)

    @property
    def url(self) -> str:
        return self._http.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job. The same key with the same spec always returns the same job.

        Without a key, each call uses a new one, so that its own repeats create only one job. Raises InvalidSpec for
        values that JSON cannot represent, and ApiError (status 422, with `problems`) for a spec that cannot run.
        """
        return _read(Job, calls.submit(self._http, spec, idempotency_key))

    def validate(self, spec: JobSpec | Mapping[str, Any]) -> DryRun:
        """Have the service check a spec as in `submit`, without creating a job. Raises the same errors as `submit`."""
        return _read(DryRun, calls.dry_run(self._http, spec))

    def get(self, job_id: JobId) -> Job:
        return _read(Job, self._http.json("GET", _job_path(job_id)))

    def list(
        self,
        *,
        state: str | Iterable[str] | None = None,
        labels: Mapping[str, str | None] | None = None,
        optimizer: str | None = None,
        id: str | None = None,  # noqa: A002  the API's word
        name: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        metric: str | Iterable[str] = (),
        page: int = calls.MOST_JOBS_PER_PAGE,
    ) -> Iterator[Job]:
        """Jobs that match all filters, newest first, fetched a page at a time.

        Several states mean any of them; a label with the value None matches any value. `id` is the last 4 digits or
        more, or the first 8 or more. `name` is a substring or, with `*` and `?`, a pattern. Times need a time zone.
        `metric` is a condition such as "val/accuracy>0.9" or "best:val/accuracy>0.9".
        """
        found = calls.list_jobs(
            self._http,
            state=state,
            labels=labels,
            optimizer=optimizer,
            id=id,
            name=name,
            created_after=created_after,
            created_before=created_before,
            metric=metric,
            page=page,
        )
        return (_read(Job, item) for item in found)

    def cancel(self, job_id: JobId) -> Job:
        """Cancel the job. A job that is already cancelled is returned unchanged."""
        return self._ask(job_id, "cancel")

    def pause(self, job_id: JobId) -> Job:
        """Pause the job. A running job is `pausing` until its checkpoint is complete, then `paused`."""
        return self._ask(job_id, "pause")

    def resume(self, job_id: JobId) -> Job:
        """Resume a paused job; if it is still `pausing`, withdraw the pause.

        The call is not repeated after a lost answer.
        """
        return self._ask(job_id, "resume", repeat_lost=False)

    def retry(self, job_id: JobId, *, start: Start = "checkpoint") -> Job:
        """Retry a failed or cancelled job, from its last checkpoint or from the start.

        The call is not repeated after a lost answer.
        """
        return self._ask(job_id, "retry", [("from", start)], repeat_lost=False)

    def delete(self, job_id: JobId) -> None:
        """Delete a job that has ended, with its checkpoints, metrics and checks.

        Raises ApiError: not-found (also if it was deleted but the answer was lost), state-conflict or in-use.
        """
        self._http.json("DELETE", _job_path(job_id))

    def delete_checkpoint(self, checkpoint_id: int) -> None:
        """Delete a checkpoint. Raises ApiError: not-found, or in-use while a job or a check needs it."""
        self._http.json("DELETE", f"/v1/checkpoints/{int(checkpoint_id)}")

    def _ask(
        self, job_id: JobId, verb: str, params: Sequence[tuple[str, str]] = (), *, repeat_lost: bool = True
    ) -> Job:
        """Raises ApiError (state-conflict, status 409) if the job's state forbids the verb.

        Without `repeat_lost`, a lost answer raises ApiError, too; `get` shows whether the verb took effect.
        """
        path = f"{_job_path(job_id)}/{verb}"
        return _read(Job, self._http.json("POST", path, params=params, repeat_lost=repeat_lost))

    def events(self, job_id: JobId, *, after: int | None = None) -> Iterator[Event]:
        """The job's events, oldest first; with `after`, only those after the event with this id."""
        params = [] if after is None else [("after", str(after))]
        found = calls.pages(self._http, f"{_job_path(job_id)}/events", "events", "after", params)
        return (_read(Event, item) for item in found)

    def metrics(
        self,
        job_id: JobId,
        *,
        keys: str | Iterable[str] = (),
        step_from: int | None = None,
        step_to: int | None = None,
        max_points: int | None = None,
        attempts: str | None = None,
    ) -> Metrics:
        """Metric curves of the given keys (default: all), in at most `max_points` buckets per key."""
        params = [("key", key) for key in ((keys,) if isinstance(keys, str) else keys)]
        numbers = {"step_from": step_from, "step_to": step_to, "max_points": max_points}
        params += [(name, str(value)) for name, value in numbers.items() if value is not None]
        params += [("attempts", attempts)] if attempts else []
        return _read(Metrics, self._http.json("GET", f"{_job_path(job_id)}/metrics", params=params))

    def checkpoints(self, job_id: JobId) -> tuple[Checkpoint, ...]:
        """The job's complete checkpoints by step."""
        return self._all(Checkpoint, f"{_job_path(job_id)}/checkpoints", "checkpoints")

    def checkpoint(self, checkpoint_id: int) -> Checkpoint:
        return _read(Checkpoint, self._http.json("GET", f"/v1/checkpoints/{int(checkpoint_id)}"))

    def download(
        self, checkpoint_id: int, path: str | Path, *, part: Part = "model", progress: ProgressCallback | None = None
    ) -> Path:
        """Download the checkpoint's weights (part "state": the rest) to a safetensors file, verify it, return its path.

        `progress(done_bytes, total_bytes)` is called meanwhile. Only a complete file replaces an existing one.
        """
        target = Path(path)
        download(self._http, f"/v1/checkpoints/{int(checkpoint_id)}/content", target, part=part, progress=progress)
        return target

    def wait(
        self,
        job_id: JobId,
        on_update: Callable[[Job], None] | None = None,
        *,
        on_silence: OnSilence | None = None,
        timeout_seconds: float | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> Job:
        """Wait until the job has ended and return it. `on_update` is called with each new version of the job.

        Polls quickly at first and finally every `poll_seconds`; a poll is cheap while nothing changes. If the service
        does not answer for 5 s, calls `on_silence(seconds)` or, without it, logs a warning to the logger
        `traind.client`. Raises ApiError after 2.5 minutes without an answer, and TimeoutError after `timeout_seconds`.
        """
        return wait(
            self._http,
            _job_path(job_id),
            partial(_read, Job),
            f"job {job_id}",
            on_update=on_update,
            on_silence=on_silence,
            timeout_seconds=timeout_seconds,
            poll_seconds=poll_seconds,
        )

    def wait_all(
        self,
        job_ids: Iterable[JobId],
        on_update: Callable[[Job], None] | None = None,
        *,
        on_silence: OnSilence | None = None,
        timeout_seconds: float | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> tuple[Job, ...]:
        """Wait until all jobs have ended and return them in the given order; otherwise like `wait`."""
        ended = wait_all(
            self._http,
            [_job_path(job_id) for job_id in job_ids],
            partial(_read, Job),
            on_update=on_update,
            on_silence=on_silence,
            timeout_seconds=timeout_seconds,
            poll_seconds=poll_seconds,
        )
        return tuple(ended)

    def verify(self, checkpoint_id: int, *, idempotency_key: str | None = None) -> Check:
        """Request a replay from the checkpoint before this one to this one; `wait_check` waits for the result.

        Raises ApiError: 404 for an unknown checkpoint, 409 for an incomplete one.
        """
        return self._ask_check(f"/v1/checkpoints/{int(checkpoint_id)}/verify", idempotency_key)

    def audit(self, job_id: JobId, *, steps: int | None = None, idempotency_key: str | None = None) -> Check:
        """Request the first `steps` steps (default: 100, or all if there are fewer) with optim_core and torch.optim.

        Raises ApiError (status 422, `audit-too-large`) if that is too much; the message gives the largest number.
        """
        params = [] if steps is None else [("steps", str(steps))]
        return self._ask_check(f"{_job_path(job_id)}/audit", idempotency_key, params)

    def check(self, check_id: JobId) -> Check:
        return _read(Check, self._http.json("GET", _check_path(check_id)))

    def checks(self, job_id: JobId) -> tuple[Check, ...]:
        """The newest checks of a job, newest first."""
        return self._all(Check, f"{_job_path(job_id)}/checks", "checks")

    def cancel_check(self, check_id: JobId) -> Check:
        return _read(Check, self._http.json("POST", f"{_check_path(check_id)}/cancel"))

    def wait_check(
        self,
        check_id: JobId,
        on_update: Callable[[Check], None] | None = None,
        *,
        on_silence: OnSilence | None = None,
        timeout_seconds: float | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> Check:
        """Wait until the check has ended and return it; like `wait` for a job."""
        return wait(
            self._http,
            _check_path(check_id),
            partial(_read, Check),
            f"check {check_id}",
            on_update=on_update,
            on_silence=on_silence,
            timeout_seconds=timeout_seconds,
            poll_seconds=poll_seconds,
        )

    def workers(self, *, stopped: bool = False, limit: int = 1_000) -> tuple[Worker, ...]:
        """The workers, live ones first, at most `limit`; with `stopped`, also those that have stopped."""
        params = [("stopped", str(stopped).lower()), ("limit", str(limit))]
        return self._all(Worker, "/v1/workers", "workers", params)

    def datasets(self) -> tuple[CatalogueEntry, ...]:
        return self._all(CatalogueEntry, "/v1/datasets", "datasets")

    def models(self) -> tuple[CatalogueEntry, ...]:
        return self._all(CatalogueEntry, "/v1/models", "models")

    def optimizers(self) -> tuple[CatalogueEntry, ...]:
        return self._all(CatalogueEntry, "/v1/optimizers", "optimizers")

    def _all(self, kind: type[A], path: str, name: str, params: Sequence[tuple[str, str]] = ()) -> tuple[A, ...]:
        return tuple(_read(kind, item) for item in calls.items(self._http.json("GET", path, params=params), name))

    def _ask_check(self, path: str, key: str | None, params: Sequence[tuple[str, str]] = ()) -> Check:
        headers = calls.idempotency(key)
        return _read(Check, self._http.json("POST", path, params=params, headers=headers))


def _job_path(job_id: JobId) -> str:
    return f"/v1/jobs/{_uuid(job_id, 'job')}"


def _check_path(check_id: JobId) -> str:
    return f"/v1/checks/{_uuid(check_id, 'check')}"


def _uuid(ident: JobId, kind: str) -> uuid.UUID:
    try:
        return uuid.UUID(str(ident))
    except ValueError:
        raise ApiError("not-found", f"{str(ident)!r} is not a {kind}'s id") from None


def _read(kind: type[A], document: Any) -> A:
    try:
        return kind.model_validate(document)
    except ValidationError as e:
        fields = ", ".join(sorted({".".join(map(str, error["loc"])) for error in e.errors()}))
        raise ApiError(
            "bad-answer", f"the service's answer is not a {kind.__name__} as this client knows it ({fields})"
        ) from None
