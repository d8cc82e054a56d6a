"""Checks the wire contract: what is generated matches proto/, and nothing that was ever published changed.

proto/wire.lock.json remembers every message field (number to name, type, label, oneof), enum value and RPC that was ever
published. What it holds may never change or go, because recorded requests and older clients rely on it; additions are written
by ``--update`` (``make wire``), which refuses everything else too. Formats: google/protobuf/descriptor.proto.
"""

from __future__ import annotations

import filecmp
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import generate_wire
import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "proto" / "wire.lock.json"

# {"messages": {message: {number: field}}, "enums": {enum: {number: name}}, "services": {service: {rpc: what}}}, as text
Contract = dict[str, dict[str, dict[str, str]]]
Field = descriptor_pb2.FieldDescriptorProto


def read_contract(proto: Path) -> Contract:
    """What the .proto files below ``proto`` say; ends the program with protoc's message if they are not well formed."""
    files = sorted(str(path.relative_to(proto)) for path in proto.rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors"
        if protoc.main(["protoc", f"-I{proto}", f"-I{well_known}", f"--descriptor_set_out={output}", *files]):
            sys.exit("check_wire: protoc failed")
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    contract: Contract = {"messages": {}, "enums": {}, "services": {}}
    for file in descriptors.file:
        for name, message in _messages(file.package, file.message_type):
            contract["messages"][name] = _fields(message)
            for enum in message.enum_type:
                contract["enums"][f"{name}.{enum.name}"] = {str(value.number): value.name for value in enum.value}
        for enum in file.enum_type:
            contract["enums"][f"{file.package}.{enum.name}"] = {str(value.number): value.name for value in enum.value}
        for service in file.service:
            contract["services"][f"{file.package}.{service.name}"] = {rpc.name: _rpc(rpc) for rpc in service.method}
    return contract


def _messages(
    scope: str, messages: Iterable[descriptor_pb2.DescriptorProto]
) -> Iterator[tuple[str, descriptor_pb2.DescriptorProto]]:
    for message in messages:
        if not message.options.map_entry:
            yield f"{scope}.{message.name}", message
            yield from _messages(f"{scope}.{message.name}", message.nested_type)


def _fields(message: descriptor_pb2.DescriptorProto) -> dict[str, str]:
    entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    fields = {}
    for field in message.field:
        entry = entries.get(field.type_name.rpartition(".")[2]) if field.type == Field.TYPE_MESSAGE else None
        if entry:
            key, value = entry.field
            text = f"map<{_type(key)}, {_type(value)}> {field.name}"
        else:
            label = "repeated " if field.label == Field.LABEL_REPEATED else "optional " if field.proto3_optional else ""
            text = f"{label}{_type(field)} {field.name}"
        if field.HasField("oneof_index") and not field.proto3_optional:
            text += f" in oneof {message.oneof_decl[field.oneof_index].name}"
        fields[str(field.number)] = text
    return fields


def _type(field: descriptor_pb2.FieldDescriptorProto) -> str:
    return field.type_name.lstrip(".") or Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def _rpc(rpc: descriptor_pb2.MethodDescriptorProto) -> str:
    request = f"{'stream ' if rpc.client_streaming else ''}{rpc.input_type.lstrip('.')}"
    response = f"{'stream ' if rpc.server_streaming else ''}{rpc.output_type.lstrip('.')}"
    return f"{request} -> {response}"


def breaks(published: Contract, current: Contract) -> list[str]:
    """What ``current`` changed or dropped of ``published``, a sentence each; empty if it only added."""
    found = []
    for kind, owners in published.items():
        for owner, entries in owners.items():
            if owner not in current[kind]:
                found.append(f"{owner} is gone")
                continue
            for key, was in entries.items():
                now = current[kind][owner].get(key)
                if now != was:
                    found.append(f"{owner} {key} was `{was}` and is {f'now `{now}`' if now else 'gone'}")
    return found


def drift() -> list[str]:
    """Files below src/coral/wire/_generated that are not what proto/ generates, are missing, or are left over."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "generated"
        generate_wire.generate(fresh)
        names = {
            str(path.relative_to(root))
            for root in (fresh, generate_wire.TARGET)
            for path in root.rglob("*.py*")
            if "__pycache__" not in path.parts
        }
        _, different, absent = filecmp.cmpfiles(fresh, generate_wire.TARGET, sorted(names), shallow=False)
    return sorted(different + absent)


def main(update: bool) -> None:
    """Checks everything, or with ``update`` records additions; ends the program with what is wrong, if anything is."""
    current = read_contract(ROOT / "proto")
    published: Contract = json.loads(LOCK.read_text()) if LOCK.exists() else {}
    if broken := breaks(published, current):
        sys.exit("check_wire: published fields and RPCs never change or go; add new ones instead.\n  " + "\n  ".join(broken))
    if update:
        LOCK.write_text(json.dumps(current, indent=1, sort_keys=False) + "\n")
        return
    if published != current:
        sys.exit("check_wire: proto/ has additions that proto/wire.lock.json does not record. Run `make wire`.")
    if stale := drift():
        sys.exit("check_wire: generated code is not what proto/ says. Run `make wire`.\n  " + "\n  ".join(stale))
    print("proto/, proto/wire.lock.json and the generated code agree")


if __name__ == "__main__":
    main(update=sys.argv[1:] == ["--update"])
