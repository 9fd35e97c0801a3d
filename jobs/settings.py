"""Settings of a process, from the environment (TRAIND_…). Secrets are SecretStr and are never logged."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs.addresses import judge_database_url, judge_redis_url
from traind.errors import TraindError, reason
from traind.spec import QUEUE_NAME

WEEK_SECONDS = 604_800
Seconds = Annotated[float, Field(ge=0.01, le=WEEK_SECONDS, allow_inf_nan=False)]
QUEUES = {"cpu": ("default",), "cuda": ("cuda", "default")}


NO_HOME = Path("/proc/no-home-folder")
"""In place of a home folder, for a user who has none (no HOME, no entry in passwd): nothing can be made there."""


def _cache_dir() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "traind"
    except RuntimeError:  # the api needs no such folder; who does says that it is missing
        return NO_HOME / "traind"


class InvalidSettings(TraindError):
    """The environment has unusable TRAIND_ variables; the text names them, without their values."""

    code = "invalid-settings"


class Settings(BaseSettings):
    """Everything an operator can set. `lease_seconds` and the like must be equal on all machines of a cluster."""

    model_config = SettingsConfigDict(
        env_prefix="TRAIND_",
        env_ignore_empty=True,  # docker-compose passes variables on that are not set as empty ones
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = None
    """postgresql://… of an external server; embedded if it is not given. Special characters of the password are
    percent-encoded, options are libpq's."""
    redis_url: SecretStr | None = None
    """redis://…, rediss://… or unix://… of an external server; embedded if it is not given. Special characters of the
    password are percent-encoded. Options are db and, with rediss://, ssl_cert_reqs (none, optional, required),
    ssl_ca_certs, ssl_certfile, ssl_keyfile and ssl_check_hostname."""

    lease_seconds: Seconds = 60.0
    """How long a worker that was not heard of keeps its job."""
    heartbeat_seconds: Seconds = 5.0
    """How often a worker renews its lease; at most a third of it."""
    idle_poll_seconds: Seconds = 2.0
    """How often an idle worker looks for due jobs by itself, with jitter."""
    stall_timeout_seconds: Seconds = 300.0
    """Silence of a trainer after which it is killed."""
    reap_interval_seconds: Seconds = 0.5
    """How often a worker looks for jobs whose worker is gone."""
    suspicion_seconds: Seconds = 1.0
    """How long a running job may be without its holder's lock."""
    drain_seconds: Seconds = 20.0
    """How long a worker that was told to stop lets its job take a checkpoint; ten seconds less than the stop grace
    around it."""
    pause_seconds: Seconds = 600.0
    """How long a job that is to be paused may take for its step and its checkpoint; then it is paused as of the last
    complete one."""

    min_free_disk_bytes: Annotated[int, Field(ge=0, le=2**60)] | None = None
    """Free space on the database's disk below which no checkpoint is taken in; 0 means no such bound. Only if that disk
    is this machine's. If not given, a tenth of the disk, at most 1 GiB."""
    max_stored_bytes: Annotated[int, Field(ge=1, le=2**60)] | None = None
    """Bytes that all checkpoints together may take; more are not taken in. For a database on another machine, whose
    disk cannot be looked at. If not given, there is no such bound."""
    database_dir: Path | None = None
    """A folder on the database's disk, to look how much is free there. Needed only if the server is on this machine and
    does not say so: it is asked if it is reached by a unix socket."""
    storage_wait_seconds: Seconds = 300.0
    """How long the last checkpoint of a job, or of a pause, waits for room in the database; then the job goes back to
    the queue, and on from the checkpoint before."""

    database_timeout_seconds: Annotated[float, Field(ge=0.5, le=300, allow_inf_nan=False)] = 5.0
    """How long the api waits for Postgres: for a statement, a lock, a connection. Then it answers 503. A Postgres that
    is frozen costs a request about twice as long."""
    max_body_bytes: Annotated[int, Field(ge=1_024, le=2**30)] = 1_048_576
    """Largest request body; a larger one is refused with 413."""
    read_timeout_seconds: Annotated[float, Field(ge=0.1, le=3_600, allow_inf_nan=False)] = 20.0
    """How long the api waits for a request's address and headers, and for more of its body; then it answers 408. A body
    must also come with 500 bytes a second on average."""
    max_job_memory_bytes: Annotated[int, Field(ge=2**29)] | None = None
    """Largest estimate of a job's memory (`memory_bytes` in its `resolved`) that a submit takes; no limit if not
    given."""
    host: str = "127.0.0.1"
    """Address that the api listens on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8321
    """Port that the api listens on; 0 means any free one."""

    fashion_mnist_dir: Path = Path("/usr/share/datasets/fashion-mnist")
    """Folder with the four files of Fashion-MNIST; this default is that of Debian's dataset-fashion-mnist."""
    fashion_mnist_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s]*$")] | None = None
    """Folder on the web with the four files of Fashion-MNIST, for machines without them."""
    cache_dir: Path = Field(default_factory=_cache_dir)
    """Where downloaded data is kept; by default traind in the user's cache folder."""
    scratch_dir: Path = Field(default_factory=lambda: _cache_dir() / "scratch")
    """Where trainers write snapshots before they are uploaded; by default scratch in the user's cache folder, under
    `traind up` scratch in the data folder."""

    worker_device: Literal["cpu", "cuda"] = "cpu"
    """What the worker trains on; one worker process per GPU."""
    worker_queues: Annotated[tuple[str, ...], NoDecode] = ()
    """Names, separated by commas; by default those of the device: default, or cuda,default."""
    worker_threads: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """CPU threads of a trainer whose job does not say. If not given, they follow the cost of the job's steps: from
    one, for small models, to all usable cores."""

    worker_memory_bytes: Annotated[int, Field(ge=2**28, le=2**60)] | None = None
    """Memory that a trainer on the CPU may use: the worker claims only jobs that are expected to fit. If not given,
    that of the machine, or the limit of the worker's cgroup if that is less; a worker with a GPU claims any job."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged, to stderr."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object per line, or lines for people."""

    @field_validator("database_url")
    @classmethod
    def _url_of_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            judge_database_url(value.get_secret_value())
        return value

    @field_validator("redis_url")
    @classmethod
    def _url_of_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            judge_redis_url(value.get_secret_value())
        return value

    @field_validator("host")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", value):
            raise ValueError("it must be an address or a name, without brackets or a port, such as 0.0.0.0 or ::1")
        return value

    @field_validator("worker_queues", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("worker_queues", mode="before")
    @classmethod
    def _default_queues(cls, value: Any, info: ValidationInfo) -> Any:
        return value or QUEUES[info.data.get("worker_device", "cpu")]

    @field_validator("worker_queues")
    @classmethod
    def _queues_that_jobs_can_name(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("no queue is named; name one, or unset it")
        for name in value:
            if not QUEUE_NAME.fullmatch(name):
                raise ValueError(
                    f"no job can name the queue {name[:80]!r}: a name begins with a letter or digit and has letters, "
                    "digits, '_', '.' and '-', at most 63 of them"
                )
        if len(set(value)) < len(value):
            raise ValueError("a queue is named twice")
        return value

    @field_validator("fashion_mnist_dir", "cache_dir", "scratch_dir")
    @classmethod
    def _utf8(cls, value: Path) -> Path:
        """Such a path travels as JSON to the trainer."""
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError("the path is not UTF-8; choose a folder with another name") from None
        return value

    @field_validator("database_dir")
    @classmethod
    def _there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("there is no such folder on this machine; name one on the database's disk, or unset it")
        return value

    @field_validator("heartbeat_seconds")
    @classmethod
    def _several_heartbeats_a_lease(cls, value: float, info: ValidationInfo) -> float:
        if value * 3 > info.data.get("lease_seconds", value * 3):
            raise ValueError("it must be at most a third of TRAIND_LEASE_SECONDS")
        return value


def load(**given: Any) -> Settings:
    """The settings of the environment, those in `given` (but None) instead. Raises InvalidSettings."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InvalidSettings("; ".join(map(_problem, error.errors(include_input=False, include_url=False)))) from None


def _problem(error: ErrorDetails) -> str:
    """The variable, and what is wrong with it; not its value, which may be secret."""
    name = f"TRAIND_{error['loc'][0]}".upper() if error["loc"] else "the TRAIND_ variables"
    message = reason(error)
    remedy = "" if error["type"] == "value_error" else "; correct or unset it (docs/configuration.md)"
    return f"{name}: {message[:1].lower()}{message[1:]}{remedy}"
