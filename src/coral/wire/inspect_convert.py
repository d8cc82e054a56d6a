"""Lists and explanations of functions, from the model to messages."""

from __future__ import annotations

from coral.model.errors import CoralError
from coral.model.inspection import FunctionExplanation, FunctionPage, TrapCost
from coral.model.resolved import ResolvedFunction
from coral.model.site import SiteKind
from coral.model.text import printable
from coral.wire._generated.mesh.v1 import inspect_pb2


def text(value: str) -> str:
    """A text that may have any bytes of a path in it, as one that a message can carry."""
    return printable(value)


def functions_to(page: FunctionPage) -> inspect_pb2.FunctionTable:
    """The message of a page of functions."""
    return inspect_pb2.FunctionTable(
        name=page.names,
        demangled=page.demangled,
        language=page.languages,
        verdict=page.verdicts,
        languages=page.language_words,
        verdicts=[
            inspect_pb2.Verdict(probeable=verdict.probeable, reason=verdict.reason, exact=verdict.exact)
            for verdict in page.verdict_values
        ],
    )


def explanation_to(explanation: FunctionExplanation, image: inspect_pb2.Image) -> inspect_pb2.Explanation:
    """The message of an explanation, without its cost."""
    return inspect_pb2.Explanation(
        image=image,
        name=explanation.name,
        probeable=explanation.verdict.probeable,
        reason=explanation.verdict.reason,
        hint=explanation.hint,
        language=explanation.language,
        method=explanation.method,
        pairing=explanation.pairing,
        addresses=[
            inspect_pb2.FunctionAddress(
                vaddr=address.vaddr,
                file_offset=address.file_offset,
                size_bytes=address.size_bytes,
                symbol=address.symbol,
                source_file=address.source_file,
                also_named=address.also_named,
            )
            for address in explanation.addresses
        ],
        sites=[
            inspect_pb2.ProbeSite(
                offset=explained.site.offset,
                kind=explained.site.kind,
                reason=explained.site.reason,
                vaddr=explained.vaddr,
                instruction=explained.instruction,
                emulated=explained.emulated,
                to=printable(explained.site.to),
                conditional=explained.site.kind is SiteKind.TAIL and explained.site.condition >= 0,
            )
            for explained in explanation.sites
        ],
        symbol_sources=explanation.symbol_sources,
        notes=explanation.notes,
    )


def resolved_to(function: ResolvedFunction) -> inspect_pb2.ResolvedFunction:
    """The message of what a function is called."""
    return inspect_pb2.ResolvedFunction(
        name=text(function.name),
        file=text(function.file),
        called=[inspect_pb2.WrittenFunction(way=ways) for ways in function.called],
        complete=function.complete,
    )


def resolved_from(message: inspect_pb2.ResolvedFunction) -> ResolvedFunction:
    """The reverse of ``resolved_to``."""
    return ResolvedFunction(
        name=message.name,
        file=message.file,
        called=tuple(tuple(written.way) for written in message.called),
        complete=message.complete,
    )


def trap_cost_to(cost: TrapCost | CoralError) -> inspect_pb2.TrapCost:
    """The message of what a trap costs, or of why that is not known."""
    if isinstance(cost, CoralError):
        return inspect_pb2.TrapCost(unavailable=str(cost))
    return inspect_pb2.TrapCost(emulated_ns=cost.emulated_ns, stepped_ns=cost.stepped_ns, pairing_ns=cost.pairing_ns)
