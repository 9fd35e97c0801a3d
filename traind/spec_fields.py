"""Which fields and kinds a JobSpec has at a place, read off its types. Called by `traind.spec_words`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from traind.spec import JobSpec, Part

Kind = tuple[Any, ...]
"""The types that a value may have: one, or those of a union (without None)."""
TAGS = ("name", "type")


def kind_at(loc: Sequence[str | int]) -> Kind:
    """The types at pydantic's `loc`, in which the tags of unions stand; empty if there is no such place."""
    kind: Kind = (JobSpec,)
    for part in loc:
        kind = _step(kind, part)
    return kind


def fields(kind: Kind) -> list[str]:
    """Names of the fields of a part, in the order of the documentation."""
    return list(kind[0].model_fields) if len(kind) == 1 and _is_part(kind[0]) else []


def has_default(loc: Sequence[str | int]) -> bool:
    """Whether the field at `loc` may be left out."""
    whole = kind_at(loc[:-1])
    field = whole[0].model_fields.get(loc[-1]) if loc and len(whole) == 1 and _is_part(whole[0]) else None
    return field is not None and not field.is_required()


@cache
def tags(kind: Kind) -> tuple[tuple[str, str], ...]:
    """(field, value) of each tag that tells the parts of a union apart."""
    return tuple((field, value) for part in kind if _is_part(part) for field, value in _tags(part))


def everywhere() -> Iterator[tuple[tuple[str, ...], str | None, str]]:
    """(path, tag, field) of every field of a section, and of the parts of a section that are no lists."""
    yield from _below((), (JobSpec,))


def _below(path: tuple[str, ...], kind: Kind) -> Iterator[tuple[tuple[str, ...], str | None, str]]:
    for part in filter(_is_part, kind):
        tag = next((value for _, value in _tags(part)), None)
        for field, info in part.model_fields.items():
            yield path, tag, field
            yield from _below((*path, field), _kinds(info.annotation))


def _step(kind: Kind, part: str | int) -> Kind:
    tagged = tuple(one for one in kind if _is_part(one) and part in [value for _, value in _tags(one)])
    if tagged and len(kind) > 1:
        return tagged
    if len(kind) != 1:
        return ()
    if _is_part(kind[0]):
        return _kinds(kind[0].model_fields[part].annotation) if part in kind[0].model_fields else ()
    items = get_args(kind[0])
    return _kinds(items[0]) if items and isinstance(part, int) else ()


def _kinds(annotation: Any) -> Kind:
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for option in get_args(annotation) for kind in _kinds(option))
    return () if annotation is type(None) else (annotation,)


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Part)


def _tags(part: type[Part]) -> list[tuple[str, str]]:
    annotations = [(field, part.model_fields[field].annotation) for field in TAGS if field in part.model_fields]
    return [
        (field, value)
        for field, annotation in annotations
        if get_origin(annotation) is Literal
        for value in get_args(annotation)
    ]
