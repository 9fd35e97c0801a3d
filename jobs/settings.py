"""Settings of a process, read from the environment (TRAIND_…). Secrets are SecretStr and are never logged."""

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
"""Stands in for the home folder of a user without one (no HOME, no entry in passwd): nothing can be created there."""


def _cache_dir() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "traind"
    except RuntimeError:  # the api needs no such folder; processes that do report that it is missing
        return NO_HOME / "traind"


class InvalidSettings(TraindError):
    """The environment has unusable TRAIND_ variables; the message names them, but not their values."""

    code = "invalid-settings"


class Settings(BaseSettings):
    """Everything an operator can set. Settings such as `lease_seconds` must be equal on all machines of a cluster."""

    model_config = SettingsConfigDict(
        env_prefix="TRAIND_",
        env_ignore_empty=True,  # docker-compose passes unset variables as empty ones
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = None
    """URL (postgresql://…) of an external server. If not given, the embedded server is used. Percent-encode special
    characters in the password. Options are those of libpq."""
    redis_url: SecretStr | None = None
    """URL (redis://…, rediss://… or unix://…) of an external server. If not given, the embedded server is used.
    Percent-encode special characters in the password. Options are db and, with rediss://, ssl_cert_reqs (none,
    optional, required), ssl_ca_certs, ssl_certfile, ssl_keyfile and ssl_check_hostname."""

    lease_seconds: Seconds = 60.0
    """How long a worker keeps its job without renewing its lease."""
    heartbeat_seconds: Seconds = 5.0
    """Time between two renewals of a worker's lease; at most a third of TRAIND_LEASE_SECONDS."""
    idle_poll_seconds: Seconds = 2.0
    """Time between two checks of an idle worker for due jobs, with jitter."""
    stall_timeout_seconds: Seconds = 300.0
    """How long a trainer may give no sign of life before it is killed."""
    reap_interval_seconds: Seconds = 0.5
    """Time between two checks of a worker for jobs whose worker is gone."""
    suspicion_seconds: Seconds = 1.0
    """How long the lock of a running job may be missing before its worker counts as dead."""
    drain_seconds: Seconds = 20.0
    """How long a worker that was told to stop waits for its job's checkpoint. Set it to at least ten seconds less than
    the stop grace period of the process manager."""
    pause_seconds: Seconds = 600.0
    """How long a job that is being paused may take to finish its step and save its checkpoint. After that it is paused
    at the last complete checkpoint."""

    min_free_disk_bytes: Annotated[int, Field(ge=0, le=2**60)] | None = None
    """Minimum free space on the database's disk: with less, no checkpoint is accepted; 0 means no minimum. Applies only
    if the disk is on this machine. If not given, a tenth of the disk, but at most 1 GiB."""
    max_stored_bytes: Annotated[int, Field(ge=1, le=2**60)] | None = None
    """Maximum size of all checkpoints together: beyond it, no checkpoint is accepted. Intended for a database on
    another machine, whose free disk space cannot be measured. If not given, there is no maximum."""
    database_dir: Path | None = None
    """A folder on the database's disk, used to measure the free space. Needed only if the server is on this machine and
    is not reached through a unix socket; over a unix socket, the server reports its folder."""
    storage_wait_seconds: Seconds = 300.0
    """How long a job's final checkpoint, or that of a pause, waits for room in the database. After that the job goes
    back to the queue and later continues from the checkpoint before."""

    database_timeout_seconds: Annotated[float, Field(ge=0.5, le=300, allow_inf_nan=False)] = 5.0
    """How long the api waits for Postgres (for a statement, a lock or a connection) before it answers 503. If Postgres
    is frozen, a request takes about twice as long."""
    max_body_bytes: Annotated[int, Field(ge=1_024, le=2**30)] = 1_048_576
    """Largest accepted request body; a larger one is refused with 413."""
    read_timeout_seconds: Annotated[float, Field(ge=0.1, le=3_600, allow_inf_nan=False)] = 20.0
    """How long the api waits for a request's address and headers, and for the next part of its body, before it answers
    408. A body must also arrive at 500 bytes per second or more, on average."""
    max_job_memory_bytes: Annotated[int, Field(ge=2**29)] | None = None
    """Largest memory estimate (`memory_bytes` in `resolved`) of a job that a submit accepts. If not given, there is no
    limit."""
    host: str = "127.0.0.1"
    """Address that the api listens on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8321
    """Port that the api listens on; 0 means any free port."""

    fashion_mnist_dir: Path = Path("/usr/share/datasets/fashion-mnist")
    """Folder with the four files of Fashion-MNIST; the default is the folder of Debian's dataset-fashion-mnist."""
    fashion_mnist_url: str | None = None
    """Web address of a folder with the four files of Fashion-MNIST, for machines that do not have the files."""
    cache_dir: Path = Field(default_factory=_cache_dir)
    """Folder for downloaded data. Default: traind in the user's cache folder."""
    scratch_dir: Path = Field(default_factory=lambda: _cache_dir() / "scratch")
    """Folder in which trainers write snapshots before they are uploaded. Default: traind/scratch in the user's cache
    folder; under `traind up`, scratch in the data folder."""

    worker_device: Literal["cpu", "cuda"] = "cpu"
    """Device that the worker trains on. Start one worker process per GPU."""
    worker_queues: Annotated[tuple[str, ...], NoDecode] = ()
    """Queues that the worker serves, separated by commas. Default: default, or cuda,default with the device cuda."""
    worker_threads: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """Number of CPU threads for jobs that do not specify one. If not given, it depends on the cost of the job's steps:
    from one, for small models, to all usable cores."""

    worker_memory_bytes: Annotated[int, Field(ge=2**28, le=2**60)] | None = None
    """Memory that a trainer on the CPU may use: the worker claims only jobs that are expected to fit. If not given, the
    machine's memory, or the limit of the worker's cgroup if that is less. A worker with a GPU claims any job."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity that is logged, to stderr."""
    log_format: Literal["json", "console"] = "json"
    """Format of the log: json writes one JSON object per line, console lines for people."""

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

    @field_validator("fashion_mnist_url")
    @classmethod
    def _folder_on_the_web(cls, value: str | None) -> str | None:
        """An error of a job may show it, so it holds no secret."""
        host = r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\]"
        if value is not None and not re.fullmatch(rf"https?://(?:{host})(?::[0-9]{{1,5}})?(?:/[!-~]*)?", value):
            raise ValueError("it must be http://host/folder or https://host/folder, without a password, in ASCII")
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
        """The path is sent to the trainer as JSON."""
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
    """Settings from the environment; values in `given` that are not None override it. Raises InvalidSettings."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InvalidSettings("; ".join(map(_problem, error.errors(include_input=False, include_url=False)))) from None


def _problem(error: ErrorDetails) -> str:
    """Names the variable and what is wrong with it, but not its value, which may be secret."""
    name = f"TRAIND_{error['loc'][0]}".upper() if error["loc"] else "the TRAIND_ variables"
    message = reason(error)
    remedy = "" if error["type"] == "value_error" else "; correct or unset it (docs/configuration.md)"
    return f"{name}: {message[:1].lower()}{message[1:]}{remedy}"
