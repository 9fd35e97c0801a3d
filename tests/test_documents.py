"""The documents are true where a program can tell: links, files, specs and commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.catalog import resolve
from traind.spec import JobSpec

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert not [target for target in targets if ":" not in target and not (page.parent / target).exists()]


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.yaml")), ids=lambda path: path.name)
def test_every_example_can_run(path: Path) -> None:
    text = re.sub(r"\b(\d+)e-(\d+)", r"\1.0e-\2", path.read_text())  # YAML 1.1, which PyYAML reads, wants the point
    resolve(JobSpec.model_validate(yaml.safe_load(text)))


def test_the_spec_in_the_readme_can_run() -> None:
    (document,) = re.findall(r"-d '(\{.*?\n\})'", README, re.DOTALL)
    resolve(JobSpec.model_validate(json.loads(document)))


def test_every_command_in_the_readme_exists() -> None:
    commands = set(re.findall(r"^(?:\.venv/bin/)?traind (\w+)", README, re.MULTILINE))
    assert commands >= {"submit", "watch", "metrics", "download"}
    for command in commands:
        done = subprocess.run([sys.executable, "-m", "traind", command, "--help"], capture_output=True, check=False)
        assert done.returncode == 0, command


def test_every_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:^|`|    )make ([a-z-]+)", page.read_text())}
    assert named <= targets
