"""Prints what an attach would do."""

from __future__ import annotations

from collections.abc import Iterator

from coral.cli.documents import Document
from coral.cli.options import Globals
from coral.cli.output import emit, emit_document, emit_line, narrate
from coral.client.colony import ColonyClient
from coral.model.text import format_duration, printable
from coral.wire._generated.colony.v1 import inspect_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2 as mesh

_LABEL = 11
_METHODS = {
    "ret_sites": "entries, and returns at every instruction that ends a call",
    "entry_only": "entries only: calls are counted, without durations",
    "": "nothing would be attached",
}
_PAIRINGS = {"sp": "by the stack pointer", "go": "by goroutine and depth of its stack", "": ""}


async def show_explanation(options: Globals, service: str, function: str) -> None:
    """Prints what an attach to a function of a service would do."""
    async with ColonyClient(options.endpoint()) as colony:
        answer = await colony.explain(service, function)
    document = explanation_document(service, function, answer)
    if options.form == "json":
        emit_document(document)
    elif options.form == "jsonl":
        emit_line(document)
    else:
        emit("\n".join(printable(line) for line in picture(document)) + "\n")
        for warning in document["warnings"]:
            narrate(f"Warning: {warning}")


def explanation_document(service: str, function: str, answer: inspect_pb2.ExplainFunctionResponse) -> Document:
    """The document: each distinct image once, with the hosts that run it."""
    images: dict[str, Document] = {}
    for host in answer.hosts:
        for explanation in host.explanations:
            document = images.setdefault(explanation.image.image_id, _image(explanation))
            document["hosts"].append(
                {
                    "agent_id": host.agent_id,
                    "instances": explanation.image.instances,
                    "call_cost_ns": {"lowest": explanation.cost.lowest_ns, "highest": explanation.cost.highest_ns}
                    if explanation.HasField("cost")
                    else None,
                    "trap_cost_ns": None
                    if host.trap_cost.unavailable
                    else {
                        "emulated": host.trap_cost.emulated_ns,
                        "stepped": host.trap_cost.stepped_ns,
                        "pairing": host.trap_cost.pairing_ns,
                    },
                    "cost_unavailable": host.trap_cost.unavailable,
                }
            )
    return {
        "service_name": service,
        "function_name": function,
        "images": list(images.values()),
        "skipped": [
            {"agent_id": host.agent_id, "path": each.path, "instances": each.instances, "reason": each.reason}
            for host in answer.hosts
            for each in host.skipped
        ],
        "warnings": list(answer.warnings),
    }


def _image(explanation: mesh.Explanation) -> Document:
    image = explanation.image
    return {
        "name": explanation.name,
        "probeable": explanation.probeable,
        "reason": explanation.reason,
        "hint": explanation.hint,
        "image_id": image.image_id,
        "build_id": image.build_id,
        "path": image.path,
        "library": image.library,
        "language": explanation.language or image.language,
        "language_version": image.language_version,
        "symbol_sources": list(explanation.symbol_sources),
        "notes": list(explanation.notes),
        "method": explanation.method,
        "pairing": explanation.pairing,
        "addresses": [
            {
                "vaddr": address.vaddr,
                "file_offset": address.file_offset,
                "size_bytes": address.size_bytes,
                "symbol": address.symbol,
                "source_file": address.source_file,
                "also_named": list(address.also_named),
            }
            for address in explanation.addresses
        ],
        "sites": [
            {
                "offset": site.offset,
                "vaddr": site.vaddr,
                "kind": site.kind,
                "instruction": site.instruction,
                "emulated": site.emulated,
                "conditional": site.conditional,
                "to": site.to,
                "reason": site.reason,
            }
            for site in explanation.sites
        ],
        "hosts": [],
    }


def picture(document: Document) -> Iterator[str]:
    """The lines that a person reads."""
    for number, image in enumerate(document["images"]):
        if number:
            yield ""
        yield from _image_picture(image)
    for each in document["skipped"]:
        yield ""
        yield f"Skipped: {each['path']} ({each['instances']} on {each['agent_id']}): {each['reason']}"


def _image_picture(image: Document) -> Iterator[str]:
    yield image["name"]
    yield _row("probeable", image["probeable"] + (f": {image['reason']}" if image["reason"] else ""))
    if image["hint"]:
        yield _row("next step", image["hint"])
    version = f" ({image['language_version']})" if image["language_version"] else ""
    yield _row("image", f"{image['path']}  {image['image_id']}")
    yield _row("language", f"{image['language']}{version}")
    yield _row("symbols", ", ".join(image["symbol_sources"]) or "none")
    for note in image["notes"]:
        yield _row("", note)
    for address in image["addresses"]:
        source = f", in {address['source_file']}" if address["source_file"] else ""
        size = f"{address['size_bytes']:,} bytes" if address["size_bytes"] else "size unknown"
        yield _row("at", f"{address['vaddr']:#x} (file {address['file_offset']:#x}), {size}{source}: {address['symbol']}")
        if address["also_named"]:
            yield _row("", f"also named {', '.join(address['also_named'])}")
    pairing = _PAIRINGS.get(image["pairing"], image["pairing"]) if image["method"] == "ret_sites" else ""
    yield _row("method", f"{_METHODS.get(image['method'], image['method'])}{f'; paired {pairing}' if pairing else ''}")
    instructions = max((len(site["instruction"]) for site in image["sites"]), default=0)
    for site in image["sites"]:
        how = "emulated" if site["emulated"] else "stepped"
        where = f"{site['vaddr']:#x} (file {site['offset']:#x})"
        yield _row(site["kind"], f"{where}  {site['instruction']:<{instructions}}  {how:<8}  {site['reason']}")
    for host in image["hosts"]:
        processes = "1 process" if host["instances"] == 1 else f"{host['instances']:,} processes"
        yield _row("on", f"{host['agent_id']}: {processes}")
        yield from _cost(host)


def _cost(host: Document) -> Iterator[str]:
    cost, trap = host["call_cost_ns"], host["trap_cost_ns"]
    if host["cost_unavailable"]:
        yield _row("cost", f"not known: {host['cost_unavailable']}")
    elif cost is not None and trap is not None:
        lowest, highest = format_duration(cost["lowest"]), format_duration(cost["highest"])
        span = lowest if lowest == highest else f"{lowest} to {highest}"
        yield _row("cost", f"{span} of CPU time for each call, as a forecast")
        parts = (
            f"{format_duration(trap['emulated'])} for an emulated instruction",
            f"{format_duration(trap['stepped'])} for one that is stepped over",
            f"{format_duration(trap['pairing'])} more at an exit",
        )
        yield _row("", f"measured there: {', '.join(parts)}")


def _row(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{text}"
