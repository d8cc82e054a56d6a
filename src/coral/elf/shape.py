"""Values made of JSON that nobody vouches for: each part has the type that the value's class says, or it is refused.

A process that read a hostile file may answer anything (see ``worker``); what it sends is taken for data and nothing more.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from functools import cache
from typing import Any, TypeVar

_T = TypeVar("_T")
_MOST_TEXT = 32 << 20
_LARGEST = 1 << 64
_DEEPEST = 8


def shaped(kind: type[_T], value: object) -> _T:
    """A value of ``kind``, made of what JSON has.

    Args:
        kind: A dataclass, enumeration, ``str``, ``int``, ``bool``, ``float`` or ``bytes`` (in JSON as hex), or a tuple, list
            or ``dict[str, ...]`` of those. Addresses and offsets (``NewType`` of int) are not negative.
        value: As ``json`` gave it.

    Raises:
        ValueError: It has another shape; the message says where.
    """
    made: _T = _shaped(kind, value, kind.__name__, 0)
    return made


def _shaped(kind: Any, value: object, where: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested too deep")
    if isinstance(kind, typing.NewType):
        number = _shaped(kind.__supertype__, value, where, depth)
        if isinstance(number, int) and number < 0:
            raise ValueError(f"{where} is negative")
        return number
    origin = typing.get_origin(kind)
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise _wrong(where, "a list")
        (element, *_) = typing.get_args(kind)
        return origin(_shaped(element, each, where, depth + 1) for each in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "an object")
        _, element = typing.get_args(kind)
        return {_text(key, where): _shaped(element, each, where, depth + 1) for key, each in value.items()}
    if origin in (types.UnionType, typing.Union):
        (element,) = (each for each in typing.get_args(kind) if each is not type(None))
        return None if value is None else _shaped(element, value, where, depth)
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast("type", kind), value, depth)
    return _scalar(kind, value, where)


def _dataclass(kind: type, value: object, depth: int) -> Any:
    name = kind.__name__
    fields = _fields(kind)
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise ValueError(f"{name} has not the parts that it must have")
    return kind(**{key: _shaped(field, value[key], f"{name}.{key}", depth + 1) for key, field in fields.items()})


@cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _scalar(kind: Any, value: object, where: str) -> Any:
    if kind is str:
        return _text(value, where)
    if kind is bytes:
        return bytes.fromhex(_text(value, where))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if kind is float and type(value) in (int, float):
        return float(typing.cast("float", value))
    if kind not in (int, bool) or type(value) is not kind:
        raise _wrong(where, f"of type {kind}")
    if kind is int and not -_LARGEST < typing.cast("int", value) < _LARGEST:
        raise ValueError(f"{where} is too large")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "text")
    if len(value) > _MOST_TEXT:
        raise ValueError(f"{where} is too long")
    value.encode()  # half a surrogate pair is a ValueError here, and would be one where it is sent on
    return value


def _wrong(where: str, wanted: str) -> ValueError:
    return ValueError(f"{where} is not {wanted}")
