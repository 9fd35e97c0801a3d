"""Builds a spec from a file and flags, and records the source of each field, so that errors name the flag or line.

A flag that changes the name of a part (`--optimizer adam` with a file that has sgd) replaces the whole part, because
the options of one optimizer do not apply to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from traind.cli.documents import Document, UnreadableDocument, parse_yaml
from traind.cli.errors import Refused
from traind.errors import MAX_TOLD, InvalidSpec, Problem, short

FLAGS: Mapping[str, str] = {
    "name": "/name",
    "dataset": "/dataset/name",
    "model": "/model/name",
    "hidden": "/model/hidden",
    "optimizer": "/optimizer/name",
    "lr": "/optimizer/lr",
    "momentum": "/optimizer/momentum",
    "nesterov": "/optimizer/nesterov",
    "betas": "/optimizer/betas",
    "weight_decay": "/optimizer/weight_decay",
    "schedule": "/schedule/name",
    "epochs": "/training/epochs",
    "steps": "/training/steps",
    "batch_size": "/training/batch_size",
    "seed": "/training/seed",
    "device": "/resources/device",
    "queue": "/resources/queue",
    "priority": "/resources/priority",
}
"""Parameters of `traind submit` and the fields they set; each part's name first."""

LENGTHS = frozenset({"/training/epochs", "/training/steps"})


class BadFlag(Refused):
    """The value of a flag is invalid in any spec."""


class Draft:
    """The document so far. `notes` tell the user what a flag has replaced."""

    def __init__(self, file: Document | None = None) -> None:
        self.document: dict[str, Any] = {} if file is None else file.value
        self.notes: list[str] = []
        self._file = file
        self._origins: dict[str, str] = {}

    def flags(self, given: Mapping[str, Any]) -> None:
        """Set the field of each of FLAGS that has a value in `given`. Raises BadFlag."""
        values = {FLAGS[name]: (name, _parsed(name, given[name])) for name in FLAGS if given[name] is not None}
        if LENGTHS & values.keys():
            self._drop_lengths(LENGTHS - values.keys())
        for pointer, (name, value) in values.items():
            parent, _, field = pointer.rpartition("/")
            if parent and field == "name":
                self._rename(parent[1:], value)
            self.put(pointer[1:].split("/"), value, _option(name))

    def assign(self, assignment: str) -> None:
        """`path.to.field=value`, the value as YAML (so as JSON). Raises BadFlag."""
        path, separator, text = assignment.partition("=")
        if not separator or not all(path.split(".")):
            raise BadFlag(f"--set {assignment}: write it as path.to.field=value")
        try:
            value, _ = parse_yaml(text)
        except UnreadableDocument as e:
            raise BadFlag(f"--set {assignment}: {e}") from None
        self.put(path.split("."), value, f"--set {path}")

    def label(self, text: str) -> None:
        key, separator, value = text.partition("=")
        if not separator:
            raise BadFlag(f"--label {text}: write it as key=value")
        self.put(["labels", key], value, f"--label {key}")

    def put(self, path: Sequence[str], value: Any, origin: str) -> None:
        """Set the field at `path`, creating the mappings above it. Raises BadFlag, also if another flag has set it."""
        pointer = "/" + "/".join(_escaped(path))
        for field, earlier in self._origins.items():
            if field == pointer or field.startswith(f"{pointer}/"):
                twice = "given twice" if earlier == origin else f"{earlier} has set it already"
                raise BadFlag(f"{origin}: {twice}; which value of {field} is meant?")
        here: Any = self.document
        for i, key in enumerate(path):
            if not isinstance(here, dict | list):
                raise BadFlag(f"{origin}: /{'/'.join(path[:i])} is not a mapping or a list, so it has no {key!r}")
            at: Any = _index(here, key, origin) if isinstance(here, list) else key
            if i == len(path) - 1:
                here[at] = value
            else:
                here = here[at] if isinstance(here, list) else here.setdefault(at, {})
        self._origins[pointer] = origin

    def check(self) -> None:
        """Check the spec without the service. Raises Refused."""
        from pydantic import ValidationError

        from traind.spec import JobSpec

        try:
            JobSpec.model_validate(self.document)
        except ValidationError as e:
            raise self.refused(InvalidSpec.from_validation(e, self.document).problems) from None

    def refused(self, problems: Iterable[Problem]) -> Refused:
        """The error with one line per problem, naming the flag or the line in the file that has to change."""
        lines = [f"{self._where(p.pointer)}: {p.message}" for p in problems]
        more = [f"and {len(lines) - MAX_TOLD} more"] if len(lines) > MAX_TOLD else []
        return Refused("the spec cannot run", *lines[:MAX_TOLD], *more)

    def _where(self, pointer: str) -> str:
        shown = short(pointer) or "/"
        given = f"{pointer}/name" if f"{pointer}/name" in self._origins else pointer
        while given and given not in self._origins:
            given = given.rpartition("/")[0]
        origin = self._origins.get(given) or self._below(pointer)
        if origin:
            return f"{origin} ({shown})"
        if self._file is not None:
            line = self._file.line(pointer)
            return f"{self._file.source}{f':{line}' if line else ''} ({shown})"
        flag = next((_option(name) for name, field in FLAGS.items() if field in (pointer, f"{pointer}/name")), None)
        return f"{flag} ({shown})" if flag else shown

    def _below(self, pointer: str) -> str | None:
        """The flag that created the mapping at `pointer`, unless it is in the file."""
        if not pointer or (self._file is not None and pointer in self._file.lines):
            return None
        return next((origin for at, origin in self._origins.items() if at.startswith(f"{pointer}/")), None)

    def _rename(self, part: str, name: str) -> None:
        values = self.document.get(part)
        if isinstance(values, dict) and values.get("name") != name:
            if values.keys() - {"name"}:
                self.notes.append(f"--{part} {name} replaces the whole of the file's {part}")
            self.document[part] = {}

    def _drop_lengths(self, pointers: Iterable[str]) -> None:
        training = self.document.get("training")
        for field in (pointer.rpartition("/")[2] for pointer in pointers):
            if isinstance(training, dict) and training.pop(field, None) is not None:
                self.notes.append(f"the file's {field} gives way to the flag")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parsed(name: str, value: Any) -> Any:
    try:
        if name == "hidden":
            return [int(part) for part in value.split(",") if part.strip()]
        if name == "betas":
            return [float(part) for part in value.split(",")]
        if name == "batch_size":
            return value if value == "full" else int(value)
    except ValueError:
        wanted = {"hidden": "numbers such as 128,64", "betas": "two numbers such as 0.9,0.999"}.get(name)
        raise BadFlag(f"{_option(name)} {value}: give {wanted or 'a number, or full'}") from None
    return value


def _index(items: list[Any], key: str, origin: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(items)):
        raise BadFlag(f"{origin}: there is no item {key!r}; the list has {len(items)}, counted from 0")
    return int(key)


def _escaped(path: Sequence[str]) -> list[str]:
    return [key.replace("~", "~0").replace("/", "~1") for key in path]
