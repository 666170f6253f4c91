"""JSON as a dataclass, field by field: nothing is converted, left out or made up."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

FORMERLY = "formerly"
"""Key of a field's metadata: the name that the field had in files that exist."""

LONGEST_PLACE = 100
"""Characters of a field's name in a message; a hostile file may have any."""


def read_strict(data: bytes, kind: type[T]) -> T:
    """``data``, UTF-8, as the dataclass ``kind``: every field but those with a default must be there, and no other.

    Fields may be str, int, float (a whole number too), bool, ``Literal``, ``tuple``, ``dict[str, Any]``, a dataclass, or
    one of these or None.
    Raises :class:`ValueError` that begins with the name of the field.
    """
    try:
        value = json.loads(data.decode("utf-8"))
        # Lone surrogates, which could not be written anywhere.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file: it is not JSON ({str(error)[:LONGEST_PLACE]})") from error
    return _as(kind, value, ())


def as_strict(kind: type[T], value: object, name: str) -> T:
    """``value``, as JSON and TOML give it, as the dataclass ``kind``: see :func:`read_strict`. ``name`` is that of the value."""
    return _as(kind, value, (name,))


def _as(kind: Any, value: Any, place: tuple[str, ...]) -> Any:
    """``value`` of the JSON as ``kind``, the annotation of a field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, place)
    if origin is types.UnionType:
        (other,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _as(other, value, place)
    if origin is typing.Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            raise _fault(place, f"it must be {' or '.join(json.dumps(choice) for choice in arguments)}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, place)
    if origin is dict:
        if not isinstance(value, dict):
            raise _fault(place, "it must be an object")
        return value
    if kind is float:
        return _float(value, place)
    if type(value) is not kind:
        words = {str: "text", int: "a whole number", bool: "true or false"}
        raise _fault(place, f"it must be {words[kind]}")
    return value


def _dataclass(kind: Any, value: Any, place: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        raise _fault(place, "it must be an object")
    kinds, fields = typing.get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    renamed = {field.metadata[FORMERLY]: name for name, field in fields.items() if FORMERLY in field.metadata}
    value = {renamed.get(name, name): content for name, content in value.items()}
    for name in value:
        if name not in fields:
            raise _fault((*place, name), "there is no such field")
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in value:
            raise _fault((*place, name), "it is missing")
    content = {name: _as(kinds[name], value[name], (*place, name)) for name in value}
    try:
        return kind(**content)
    except ValueError as error:
        raise _fault(place, str(error)) from error


def _tuple(kinds: Sequence[Any], value: Any, place: tuple[str, ...]) -> tuple:
    if not isinstance(value, list):
        raise _fault(place, "it must be a list")
    if kinds[-1] is ...:
        kinds = [kinds[0]] * len(value)
    if len(value) != len(kinds):
        raise _fault(place, f"it must have {len(kinds)} values, not {len(value)}")
    return tuple(_as(kind, one, (*place, str(n))) for n, (kind, one) in enumerate(zip(kinds, value, strict=True)))


def _float(value: Any, place: tuple[str, ...]) -> float:
    if type(value) not in (int, float):
        raise _fault(place, "it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _fault(place, "it must be a finite number")
    return number


def _fault(place: tuple[str, ...], reason: str) -> ValueError:
    return ValueError(f"{'.'.join(place)[:LONGEST_PLACE] or 'the file'}: {reason}")
