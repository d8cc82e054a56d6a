"""Requests that nobody meant to send: of every method of a server, valid in form, damaged, or not of any form."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

import coral.wire._generated as generated
from coral.wire._generated.colony.v1 import debug_pb2, inspect_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2 as mesh_pb2
from coral.wire.address import MAX_REQUEST_BYTES
from fuzz.hostile_text import damaged, text

_DEPTH = 4
_EXTREMES = (
    0,
    1,
    -1,
    2,
    1000,
    10_000,
    10_001,
    (1 << 31) - 1,
    -(1 << 31),
    (1 << 32) - 1,
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of a server.

    Attributes:
        path: Its full name, with slashes.
        request: The type that it takes.
        streams: Whether it answers with a stream.
    """

    path: str
    request: Descriptor
    streams: bool


def methods(package: str) -> list[Method]:
    """Every method of every service of a package, such as ``coral.colony.v1``, from the generated code."""
    found = []
    for module in pkgutil.walk_packages(generated.__path__, f"{generated.__name__}."):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            if file.package == package:
                for service in file.services_by_name.values():
                    found += [_method(method) for method in service.methods]
    return sorted(found, key=lambda method: method.path)


def _method(method: MethodDescriptor) -> Method:
    pool = descriptor_pool.Default()
    service = pool.FindServiceByName(method.containing_service.full_name)
    return Method(
        path=f"/{service.full_name}/{method.name}", request=method.input_type, streams=bool(method.server_streaming)
    )


def good(service: str) -> dict[str, bytes]:
    """Requests that are answered, by method: what is damaged a little should get further than what means nothing."""
    short = Duration(seconds=1)
    attach = debug_pb2.AttachUprobeRequest(service_name=service, function_name="work", duration=short)
    start = ebpf_pb2.StartUprobeCollectorRequest(service_name=service, function_name="work", duration=short)
    requests: dict[str, Message] = {
        "/coral.colony.v1.DebugService/AttachUprobe": attach,
        "/coral.colony.v1.DebugService/ListDebugSessions": debug_pb2.ListDebugSessionsRequest(service_name=service),
        "/coral.colony.v1.InspectService/QueryDatabase": inspect_pb2.QueryDatabaseRequest(sql="SELECT * FROM audit_log"),
        "/coral.colony.v1.InspectService/ListFunctions": inspect_pb2.ListFunctionsRequest(service_name=service),
        "/coral.colony.v1.InspectService/ExplainFunction": inspect_pb2.ExplainFunctionRequest(
            service_name=service, function_name="work"
        ),
        "/coral.mesh.v1.DebugService/StartUprobeCollector": start,
        "/coral.mesh.v1.InspectService/ListImages": mesh_pb2.ListImagesRequest(service_name=service),
    }
    return {path: message.SerializeToString() for path, message in requests.items()}


def request(randomness: random.Random, method: Method, known: Sequence[str], good: Mapping[str, bytes]) -> bytes:
    """The bytes of one request.

    Args:
        randomness: Where the choices come from.
        method: For which method.
        known: Texts that mean something to the server: names of services, ids of sessions.
        good: Requests that are answered, by method.
    """
    if method.path in good and randomness.random() < 0.3:
        answered = good[method.path]
        return answered if randomness.random() < 0.5 else damaged(randomness, answered)
    choice = randomness.random()
    if choice < 0.05:
        return randomness.randbytes(randomness.choice((0, 1, 10, 1000, 100_000)))
    if choice < 0.06:
        return b"\x0a" + _varint(MAX_REQUEST_BYTES + 10) + b"x" * (MAX_REQUEST_BYTES + 10)
    if choice < 0.1:
        return _nested(randomness)
    plausible = randomness.random() < 0.4  # else nothing would get past the first check
    valid = message(randomness, method.request, known, plausible=plausible).SerializeToString()
    if choice < 0.55:
        return valid
    if choice < 0.65:
        return valid + _unknown(randomness)
    return damaged(randomness, valid)


def message(randomness: random.Random, kind: Descriptor, known: Sequence[str], *, plausible: bool, depth: int = 0) -> Message:
    """A message in which every field has some value of its type, or none; if ``plausible``, few, and rather known ones."""
    made = message_factory.GetMessageClass(kind)()
    if kind.full_name == "google.protobuf.Duration":
        made.seconds = randomness.choice((1, 1, 2, 2, 0, -1, 600, 601, 315_576_000_000))  # type: ignore[attr-defined]
        made.nanos = randomness.choice((0, 0, 1, 999_999_999, -1))  # type: ignore[attr-defined]
        return made
    for field in kind.fields:
        if randomness.random() < (0.55 if plausible else 0.35 if depth else 0.2):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(randomness, made, field, known, plausible=plausible)
        elif field.is_repeated:
            count = randomness.choice((0, 1, 2, 3, 3, 500) if depth == 0 else (0, 1, 2))
            values = [_value(randomness, field, known, plausible=plausible, depth=depth) for _ in range(count)]
            getattr(made, field.name).extend(value for value in values if value is not None)
        elif field.message_type is not None:
            value = _value(randomness, field, known, plausible=plausible, depth=depth)
            if value is not None:
                getattr(made, field.name).CopyFrom(value)
        else:
            setattr(made, field.name, _value(randomness, field, known, plausible=plausible, depth=depth))
    return made


def _fill_map(
    randomness: random.Random, made: Message, field: FieldDescriptor, known: Sequence[str], *, plausible: bool
) -> None:
    entry = field.message_type.fields_by_name
    for _ in range(randomness.choice((0, 1, 3))):
        key = _value(randomness, entry["key"], known, plausible=plausible, depth=_DEPTH)
        value = _value(randomness, entry["value"], known, plausible=plausible, depth=_DEPTH)
        if value is not None and entry["value"].message_type is None:
            getattr(made, field.name)[key] = value


def _value(randomness: random.Random, field: FieldDescriptor, known: Sequence[str], *, plausible: bool, depth: int) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        if depth >= _DEPTH:
            return None
        return message(randomness, field.message_type, known, plausible=plausible, depth=depth + 1)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return randomness.random() < 0.5
    if field.type == FieldDescriptor.TYPE_BYTES:
        return randomness.randbytes(randomness.choice((0, 1, 32, 4000)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        sensible = known and randomness.random() < (0.95 if plausible else 0.5)
        return randomness.choice(known) if sensible else text(randomness)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return randomness.choice((0.0, -1.0, 1e308, float("inf"), float("nan")))
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return randomness.choice([value.number for value in field.enum_type.values] + [99])
    low, high = _RANGES[kind]
    return randomness.choice([value for value in _EXTREMES if low <= value <= high])


def _nested(randomness: random.Random) -> bytes:
    """Messages in messages, as groups and as length-delimited fields, deeper than any parser should go."""
    depth = randomness.choice((10, 99, 101, 2000, 20_000))
    number = randomness.randint(1, 5)
    if randomness.random() < 0.5:
        return bytes([number << 3 | 3]) * depth + (bytes([number << 3 | 4]) * depth if randomness.random() < 0.5 else b"")
    content = b""
    for _ in range(min(depth, 2000)):
        content = bytes([number << 3 | 2]) + _varint(len(content)) + content
    return content


def _unknown(randomness: random.Random) -> bytes:
    """Fields that the type does not have, or has otherwise."""
    parts = []
    for _ in range(randomness.choice((1, 3, 200))):
        number = randomness.choice((1, 2, 3, 7, 100, 101, 999, 19_500, (1 << 29) - 1, 0))
        wire = randomness.choice((0, 1, 2, 5, 6, 7))
        body = {0: _varint(randomness.getrandbits(64)), 1: b"\xff" * 8, 2: _varint(3) + b"\xff\xfe\0", 5: b"\0" * 4}
        parts.append(_varint(number << 3 | wire) + body.get(wire, b"\x80" * 11))
    return b"".join(parts)


def _varint(value: int) -> bytes:
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)
