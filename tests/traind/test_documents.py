"""Spec files as people write them, and as nobody should."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from traind.cli import documents
from traind.cli.documents import UnreadableDocument, parse_json, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("+5", 5),
        ("-7", -7),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("0b11", "0b11"),
        ("1e", "1e"),
        ("e3", "e3"),
        (".", "."),
        ("'1'", "1"),
        ("!!str 5", "5"),
        ("[1, a, {b: .5}]", [1, "a", {"b": 0.5}]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed, _ = parse_yaml(f"field: {text}")
    assert parsed == {"field": value}
    assert type(parsed["field"]) is type(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "the key 'b' stands twice"),
        ("a: !!python/object/apply:os.system [ls]", "the tag !!python/object/apply:os.system is refused"),
        ("a: !env HOME", "the tag !env is refused"),
        ("a: !!binary aGk=", "the tag !!binary is refused"),
        ("a: !!set {x}", "the tag !!set is refused"),
        ("a: !!int foo", "is not a number"),
        ("a: .nan", "is not a number that JSON can hold"),
        ("a: -.inf", "is not a number that JSON can hold"),
        ("a: 1e999", "is not a number that JSON can hold"),
        (f"a: {'9' * 5000}", "is not a number that JSON can hold"),
        ("1: a", "a key must be a string"),
        ("? [a]\n: 1", "a key must be a string"),
        ("a: &x [*x]", "no spec is that large"),
        ("a: *nowhere", "line 1, column 4: nothing is anchored as nowhere;"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document begins here"),
        ("a: b: c", "line 1, column 5: a ':' where none can be: check the indentation"),
        ("lr 0.1\nname: x", "line 2, column 5: a ':' where none can be: .* missing ':' on the line above"),
        ("a:\n  - 1\n b: 2", "line 3, column 2: the indentation does not fit the lines above"),
        (
            "a: {b: 1\nc: 2",
            "line 1, column 4: the bracket that opens here is not closed: line 2, column 2 needs ',' or '}'",
        ),
        ("b: 1\na: 'x\nc: 1", "line 2, column 4: the quotes that open here are not closed"),
        ("a: @x", "line 1, column 4: a value cannot begin with @; put it in quotes"),
        ("{a: 1}}", "line 1, column 7: '}' after the end of the document"),
        ("- [", "line 1"),
        ("a: 1\n\tb: 2", "line 2, column 1: a tab where only spaces can be"),
        ("a: \x07", "line 1: the character U\\+0007 is not allowed"),
        ("a: 1\n" * 2_000 + "b: \x1b", "line 2001: the character U\\+001B is not allowed"),
        ("[" * 5_000, "nested too deeply"),
        ("[" * 80 + "]" * 80, "levels"),
    ],
)
def test_what_no_spec_should_hold_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason.replace("(", r"\(")):
        parse_yaml(text)


def test_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    levels = [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    started = time.monotonic()
    with pytest.raises(UnreadableDocument, match="no spec is that large"):
        parse_yaml("\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *levels]))
    assert time.monotonic() - started < 10  # 9**9 values would take minutes, and the memory


def test_aliases_in_reason_are_followed() -> None:
    value, _ = parse_yaml("layer: &l {type: linear, out_features: 8}\nlayers: [*l, {type: relu}, *l]")
    assert value["layers"] == [
        {"type": "linear", "out_features": 8},
        {"type": "relu"},
        {"type": "linear", "out_features": 8},
    ]


def test_lines_are_those_of_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("# a comment\ndataset:\n  name: digits\noptimizer: {name: adam,\n  lr: -1}\n")
    document = documents.read(str(file))
    assert document.line("/dataset/name") == 3
    assert document.line("/optimizer/lr") == 5
    assert document.line("/optimizer/missing/deeper") == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "the name 'a' stands twice"),
        ('{"a": NaN}', "NaN is not a number that JSON can hold"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a": 1e999}', "larger than JSON can hold"),
        ('{"a": %s}' % ("9" * 5_000), "larger than JSON can hold"),
        ('{"a": 1,}', "line 1, column 9"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_is_strict(text: str, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        parse_json(text)


def test_a_json_file_is_read_as_json_and_braces_without_a_suffix_too(tmp_path: Path) -> None:
    spec = {"name": "\U0001f600 tab\t", "lr": 1e-3, "on": "no"}
    for name in ("job.json", "job"):
        (tmp_path / name).write_text(json.dumps(spec))
        assert documents.read(str(tmp_path / name)).value == spec
    (tmp_path / "flow").write_text("{lr: 1e-3}")
    assert documents.read(str(tmp_path / "flow")).value == {"lr": 0.001}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xd8", "not a text file"),
        (b"name: a\x00b", "holds NUL"),
        (b"x: 1\n" * 60_000, "more than 262,144 bytes"),
        (b"", "found nothing"),
        (b"- a\n- b\n", "found a list"),
        (b"hello", "found a str"),
        (b"# nothing but a comment\n", "found nothing"),
    ],
)
def test_a_file_that_is_no_spec_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    with pytest.raises(UnreadableDocument, match=reason) as raised:
        documents.read(str(file))
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.yaml", "No such file"), (".", "Is a directory"), ("a\0b", "null")]
)
def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        documents.read(str(tmp_path / name))


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(UnreadableDocument, match="more than 262,144 bytes"):
        documents.read("/dev/zero")


@pytest.mark.parametrize(("name", "text"), [("job.yaml", b"name: a\n"), ("job.json", b'{"name": "a"}')])
def test_a_byte_order_mark_is_no_part_of_the_spec(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text)
    assert documents.read(str(tmp_path / name)).value == {"name": "a"}
