"""Calls to the service: the key, retries with back-off, and problem documents turned into `ApiError`.

A lost answer is asked for again where that is safe: reads, what carries an idempotency key, cancel and pause. A resume
or retry is not, because the job can have been paused, or have failed, again. Redirects are not followed: the key stays
with the host it was given for. Nothing here prints or logs.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2

from traind.errors import ApiError, Problem

RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
LOST_STATUSES = frozenset({502, 504})
"""A proxy got no answer from the service, which may have carried out the request."""
MAX_RETRY_AFTER_SECONDS = 30.0
CONNECT_SECONDS = 5.0
UNREACHABLE = "unreachable"
"""The call was never sent."""
NO_ANSWER = "no-answer"
"""The call was sent at least once; whether it was carried out is not known."""
CLIENT_ENVIRONMENT = "client-environment"
"""A variable of the environment prevents the client from making any call."""
Params = Sequence[tuple[str, str]]


class Http:
    """One service, one key. A call that fails temporarily is repeated up to `retries` times, with back-off."""

    def __init__(
        self, url: str, api_key: str, *, timeout_seconds: float = 30.0, retries: int = 4, backoff_seconds: float = 0.1
    ) -> None:
        base = _base_url(url)
        if (
            not isinstance(api_key, str)
            or not api_key
            or not api_key.isascii()
            or not api_key.isprintable()
            or " " in api_key
        ):
            raise ValueError(
                "the API key is no text, is empty, or has characters that no key has (spaces, line ends, non-ASCII)"
            )
        self.url = str(base).rstrip("/")
        self.timeout_seconds = timeout_seconds
        self._retries = retries
        self._backoff_seconds = backoff_seconds
        self._client = _client(base, api_key, timeout_seconds=timeout_seconds)

    def close(self) -> None:
        self._client.close()

    def json(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeat_lost: bool = True,
    ) -> Any:
        """The JSON of the answer, None for a DELETE. Raises ApiError unless the answer is a 2xx with JSON.

        `repeat_lost`: whether the call is repeated where it may have been carried out, its answer lost.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        in_doubt = False
        for delay in self._delays():
            try:
                answer = self._client.request(method, path, params=tuple(params), content=content, headers=sent)
                return _json_of(answer)
            except (httpx2.TransportError, httpx2.DecodingError, ApiError) as e:
                failure = as_api_error(e, self.url)
                lost = failure.code == NO_ANSWER or failure.status in LOST_STATUSES
                in_doubt = in_doubt or lost
                if delay is None or not failure.retryable or (lost and not repeat_lost):
                    failure.code = NO_ANSWER if in_doubt and failure.code == UNREACHABLE else failure.code
                    raise failure from (None if failure is e else e)
                time.sleep(max(delay, min(failure.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS)))
        raise AssertionError("the last delay is None")

    def poll(self, path: str, etag: str | None, *, timeout_seconds: float) -> tuple[Any, str | None]:
        """One GET, not repeated: the JSON and its ETag, or None and `etag` if that is current. Raises ApiError."""
        headers = {"Accept": "application/json"} | ({"If-None-Match": etag} if etag else {})
        timeout = httpx2.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS))
        try:
            answer = self._client.get(path, headers=headers, timeout=timeout)
            if etag and answer.status_code == httpx2.codes.NOT_MODIFIED:
                return None, etag
            return _json_of(answer), answer.headers.get("ETag")
        except (httpx2.TransportError, httpx2.DecodingError) as e:
            raise as_api_error(e, self.url) from e

    @contextmanager
    def stream(
        self, path: str, *, params: Params = (), headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """A GET whose body the caller reads; not repeated here. Raises ApiError; transport errors pass through."""
        with self._client.stream("GET", path, params=tuple(params), headers=dict(headers or {})) as answer:
            if not answer.is_success:
                answer.read()
                raise problem(answer)
            yield answer

    def _delays(self) -> Iterator[float | None]:
        for attempt in range(self._retries):
            yield self._backoff_seconds * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311  # spreads callers, no secret
        yield None


def _client(base: httpx2.URL, api_key: str, *, timeout_seconds: float) -> httpx2.Client:
    """Raises ApiError (`client-environment`) if a variable for a proxy or for certificates cannot be used."""
    trust_env = not _is_loopback(base.host)  # a proxy must not come between this machine and itself
    try:
        return httpx2.Client(
            base_url=base,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "traind-client"},
            timeout=httpx2.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS)),
            follow_redirects=False,
            trust_env=trust_env,
            verify=base.scheme == "https" or trust_env,  # without TLS: 50 ms less
        )
    except ImportError:
        raise ApiError(
            CLIENT_ENVIRONMENT, "a SOCKS proxy (ALL_PROXY, HTTPS_PROXY) needs the package socksio; install or unset it"
        ) from None
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or "no certificates"
        raise ApiError(
            CLIENT_ENVIRONMENT,
            f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read ({reason}); correct or unset them",
        ) from None
    except (ValueError, httpx2.InvalidURL):  # whose texts may hold a password
        raise ApiError(
            CLIENT_ENVIRONMENT,
            "the proxy of ALL_PROXY, HTTP_PROXY or HTTPS_PROXY (or NO_PROXY) is not an address; correct or unset it",
        ) from None


def as_api_error(error: Exception, url: str) -> ApiError:
    """The ApiError for an error of httpx2."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.DecodingError):
        return ApiError("bad-answer", f"{url} does not answer as traind does: {error}")
    reason = f" ({error})" if str(error) else ""
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return ApiError(UNREACHABLE, f"the service at {url} cannot be reached{reason}", retryable=True)
    return ApiError(NO_ANSWER, f"the service at {url} gave no answer{reason}", retryable=True)


def problem(answer: httpx2.Response) -> ApiError:
    """The ApiError for an answer that is not a 2xx; made from its problem document if it has one."""
    status = answer.status_code
    retryable = status in RETRY_STATUSES
    if answer.is_redirect:
        target = answer.headers.get("Location", "another address")
        return ApiError(
            "redirected", f"the service's address leads on to {target}; give that address instead", status=status
        )
    document = _document(answer)
    return ApiError(
        str(document.get("code") or f"http-{status}"),
        str(document.get("detail") or document.get("title") or f"the service answered {status} {answer.reason_phrase}"),
        status=status,
        retryable=retryable,
        retry_after_seconds=_retry_after(answer) if retryable else None,
        pointer=document.get("pointer"),
        problems=_problems(document),
        request_id=document.get("request_id") or answer.headers.get("X-Request-Id"),
    )


def _problems(document: dict[str, Any]) -> list[Problem]:
    errors = document.get("errors")
    entries = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
    return [Problem(str(e.get("pointer", "")), str(e.get("code", "")), str(e.get("message", ""))) for e in entries]


def _document(answer: httpx2.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _json_of(answer: httpx2.Response) -> Any:
    if not answer.is_success:
        raise problem(answer)
    if answer.status_code == 204 and answer.request.method == "DELETE":
        return None
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise ApiError(
            "bad-answer", f"{answer.url} answered without JSON; is it traind?", status=answer.status_code
        ) from None


def _retry_after(answer: httpx2.Response) -> float | None:
    """Seconds to wait according to the Retry-After header (RFC 9110, 10.2.3); traind does not use its date form."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _base_url(url: str) -> httpx2.URL:
    try:
        base = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as e:
        raise ValueError(f"{url!r} is not an address: {e}") from None
    if base.userinfo or base.query or base.fragment:
        raise ValueError("the service's address takes no user, password, query or fragment; the key is given by itself")
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8321")
    return base


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
