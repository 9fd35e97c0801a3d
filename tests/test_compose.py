"""docker-compose.yml is valid, and what it names exists. No engine runs here: nothing is built or started."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def test_it_follows_the_compose_specification() -> None:
    command = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_services_are_all_there() -> None:
    assert COMPOSE["services"].keys() == {"db", "redis", "migrate", "api", "worker", "worker-gpu"}
    assert COMPOSE["services"]["worker-gpu"]["profiles"] == ["gpu"]


def commands() -> list[tuple[str, list[str]]]:
    found = [(name, service["command"]) for name, service in OURS.items()]
    return found + [(f"{n} health", s["healthcheck"]["test"][1:]) for n, s in OURS.items() if "healthcheck" in s]


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_exists(name: str, command: list[str]) -> None:
    if command[0] == "python":
        assert command[1] == "-m"
        module = importlib.util.find_spec(command[2])
        assert module is not None
        if module.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{command[2]}.__main__") is not None
        argv = [sys.executable, "-m", command[2]]
    else:
        assert command[0] == "traind"
        argv = [str(Path(sys.executable).parent / "traind"), *command[1:]]
    environment = {"COLUMNS": "200"}
    done = subprocess.run([*argv, "--help"], capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for option in (word for word in command if word.startswith("--")):
        assert option in done.stdout


@pytest.mark.parametrize("name", [n for n in COMPOSE["services"] if n != "migrate"])
def test_every_long_running_service_has_a_health_check(name: str) -> None:
    assert COMPOSE["services"][name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", ["api", "worker", "worker-gpu"])
def test_a_service_waits_for_the_migration_and_healthy_servers(name: str) -> None:
    waits = COMPOSE["services"][name]["depends_on"]
    assert waits["migrate"]["condition"] == "service_completed_successfully"
    assert waits["redis"]["condition"] == "service_healthy"
    assert COMPOSE["services"]["migrate"]["depends_on"]["db"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_the_workers_have_time_to_save(name: str) -> None:
    minutes = re.fullmatch(r"\$\{TRAIND_STOP_GRACE_PERIOD:-(\d+)m\}", COMPOSE["services"][name]["stop_grace_period"])
    assert minutes is not None
    assert int(minutes[1]) * 60 >= Settings().drain_seconds + 10


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_a_workers_cpus_and_memory_can_be_bounded(name: str) -> None:
    service = COMPOSE["services"][name]
    assert (service["cpus"], service["mem_limit"]) == ("${TRAIND_WORKER_CPUS:-0}", "${TRAIND_WORKER_MEMORY_LIMIT:-0}")


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_logs_do_not_fill_the_disk(name: str) -> None:
    logging = COMPOSE["services"][name]["logging"]
    assert (logging["driver"], logging["options"]) == ("json-file", {"max-size": "10m", "max-file": "5"})


SET_BY_THE_FILE = {
    *("database_url", "redis_url", "database_dir", "host", "port"),
    *("cache_dir", "scratch_dir", "fashion_mnist_dir", "worker_device"),
}


@pytest.mark.parametrize("name", OURS)
def test_every_setting_that_the_file_does_not_set_is_passed_through(name: str) -> None:
    passed = {variable for variable, value in OURS[name]["environment"].items() if value is None}
    settings = {f"TRAIND_{field.upper()}" for field in Settings.model_fields if field not in SET_BY_THE_FILE}
    assert passed == settings | {"TRAIND_KERNEL"}


def test_the_image_has_fashion_mnist_where_a_worker_looks_for_it() -> None:
    image = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert image.startswith("python:3.11-slim-bookworm\n"), "a Debian that is known to have the package"
    assert re.search(r"apt-get install .* dataset-fashion-mnist ", image)
    assert "Debian's dataset-fashion-mnist" in str(Settings.model_fields["fashion_mnist_dir"].description)


def test_every_variable_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    text = FILE.read_text()
    used = set(re.findall(r"\$\{(\w+)", text)) | set(re.findall(r"^\s+((?:TRAIND|PG)\w+):", text, re.MULTILINE))
    assert used
    assert not {name for name in used if f"`{name}`" not in page}


def test_secrets_must_be_given_and_have_no_default() -> None:
    secrets = re.findall(r"\$\{(\w*PASSWORD\w*)([^}]*)\}", FILE.read_text())
    assert secrets
    assert all(rest.startswith(":?") for _, rest in secrets)


def test_the_image_does_not_run_as_root_and_holds_every_package() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    assert "\nUSER traind\n" in lines
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests", "bench", "examples"}
    assert {p for p in packages if f"COPY {p} {p}\n" in lines} == packages
