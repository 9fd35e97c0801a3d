"""Reads the file of a spec: JSON, or YAML 1.2 without its traps.

PyYAML follows YAML 1.1: `1e-3` is a string to it, `no` a boolean, a repeated key silently wins and a tag may run code.
Here the scalars are those of YAML 1.2's core schema, a repeated key is an error, tags are refused, and aliases may not
blow a document up. What comes out is what JSON can hold. Line numbers are kept for error messages.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traind.cli.errors import Refused

MAX_BYTES = 262_144
MAX_VALUES = 50_000
MAX_DEPTH = 64


class UnreadableDocument(Refused):
    """The text is not one JSON or YAML mapping; the message says where and why."""


@dataclass(frozen=True)
class Document:
    """A parsed mapping. `lines` gives the line (from 1) of the field at a JSON pointer, if it is known."""

    source: str
    value: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, pointer: str) -> int | None:
        """The line of the field, or of the mapping that would contain it."""
        while pointer not in self.lines and pointer:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer)


def read(name: str) -> Document:
    """The document in the file `name`, or in standard input for "-". Raises UnreadableDocument."""
    source = "standard input" if name == "-" else name
    text = _text(_bytes(name), source)
    if name.endswith(".json") or text.lstrip()[:1] == "{":
        try:
            return Document(source, _mapping(parse_json(text), source))
        except UnreadableDocument as e:
            if name.endswith(".json"):
                raise UnreadableDocument(f"{source}: {e}") from None
    try:
        value, lines = parse_yaml(text)
    except UnreadableDocument as e:
        raise UnreadableDocument(f"{source}: {e}") from None
    return Document(source, _mapping(value, source), lines)


def parse_json(text: str) -> Any:
    """Strict JSON: no NaN, no repeated names. Raises UnreadableDocument."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_float)
    except json.JSONDecodeError as e:
        raise UnreadableDocument(f"line {e.lineno}, column {e.colno}: {e.msg}") from None
    except RecursionError:
        raise UnreadableDocument("nested too deeply") from None
    except ValueError:
        raise UnreadableDocument("a number is larger than JSON can hold") from None


def parse_yaml(text: str) -> tuple[Any, dict[str, int]]:
    """One YAML document as JSON values, and the line of each field. Raises UnreadableDocument."""
    import yaml

    from traind.cli.yaml12 import Loader
    from traind.cli.yaml_words import said

    try:
        root = yaml.compose(io.StringIO(text), Loader=Loader)
    except yaml.MarkedYAMLError as e:
        raise UnreadableDocument(said(e)) from None
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise UnreadableDocument(f"line {line}: the character U+{e.character:04X} is not allowed") from None
    except (yaml.YAMLError, ValueError) as e:
        raise UnreadableDocument(" ".join(str(e).split())[:200]) from None
    except RecursionError:
        raise UnreadableDocument("nested too deeply") from None
    builder = _Builder()
    return (None if root is None else builder.build(root, "", 0)), builder.lines


class _Builder:
    """Converts YAML nodes to values, and counts the values with aliases expanded."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.n_values = 0

    def build(self, node: Any, pointer: str, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.n_values += 1
        if self.n_values > MAX_VALUES or depth > MAX_DEPTH:
            raise UnreadableDocument(
                f"line {line}: more than {MAX_VALUES:,} values or {MAX_DEPTH} levels; no spec is that large"
            )
        self.lines[pointer] = line
        if node.id == "scalar":
            return _scalar(node.tag, node.value, line)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise _refused_tag(node.tag, line)
        if node.id == "sequence":
            return [self.build(item, f"{pointer}/{i}", depth + 1) for i, item in enumerate(node.value)]
        return self._mapping(node, pointer, depth)

    def _mapping(self, node: Any, pointer: str, depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, line)
            if key in value:
                raise UnreadableDocument(f"line {line}: the key {key!r} stands twice in one mapping")
            escaped = key.replace("~", "~0").replace("/", "~1")
            value[key] = self.build(value_node, f"{pointer}/{escaped}", depth + 1)
            self.lines[f"{pointer}/{escaped}"] = line
        return value

    def _key(self, node: Any, line: int) -> str:
        key = _scalar(node.tag, node.value, line) if node.id == "scalar" else None
        if not isinstance(key, str):
            raise UnreadableDocument(f"line {line}: a key must be a string; put it in quotes")
        return key


def _scalar(tag: str, text: str, line: int) -> Any:
    kind = tag.removeprefix("tag:yaml.org,2002:")
    try:
        if kind in _SCALARS:
            return _SCALARS[kind](text)
    except ValueError:
        raise UnreadableDocument(f"line {line}: {text[:60]!r} is not a number that JSON can hold") from None
    raise _refused_tag(tag, line)


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(text: str) -> float:
    value = float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    if not math.isfinite(value):
        raise ValueError
    return value


_SCALARS: dict[str, Any] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _int,
    "float": _float,
}


def _refused_tag(tag: str, line: int) -> UnreadableDocument:
    return UnreadableDocument(
        f"line {line}: the tag {tag.replace('tag:yaml.org,2002:', '!!')} is refused; a spec needs no tags"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise UnreadableDocument(f"the name {name!r} stands twice in one object")
        value[name] = item
    return value


def _no_constant(name: str) -> Any:
    raise UnreadableDocument(f"{name} is not a number that JSON can hold")


def _mapping(value: Any, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise UnreadableDocument(f"{source}: a spec is a mapping with dataset, model and optimizer; found {found}")
    return value


def _bytes(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else str(e)
        raise UnreadableDocument(f"{name}: {reason}") from None


def _text(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise UnreadableDocument(f"{source}: more than {MAX_BYTES:,} bytes; no spec is that large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UnreadableDocument(f"{source}: not a text file (byte {e.start} is not UTF-8)") from None
    if "\0" in text:
        raise UnreadableDocument(f"{source}: not a text file (it holds NUL)")
    return text
