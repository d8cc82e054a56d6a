"""Plans for programs whose probe sites are marked by symbols, so that the kernel layer is tested without reading code.

In the assembly of a test program ``site_entry``, ``site_return`` and ``site_tail`` (and names that begin so) mark the
instructions; ``site_tail_jCC`` marks a conditional jump with condition CC.
"""

from __future__ import annotations

from pathlib import Path

import lief

from coral.model.addresses import FileOffset
from coral.model.site import FunctionPlan, Method, Pairing, Site, SiteKind

CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")


def marked_plan(program: Path, *, method: Method = Method.RET_SITES) -> FunctionPlan:
    """The plan that the marks in a program make."""
    image = lief.ELF.parse(str(program))
    sites = []
    for symbol in image.symtab_symbols:
        kind = next((kind for kind in SiteKind if str(symbol.name).startswith(f"site_{kind}")), None)
        if kind is None:
            continue
        segment = next(
            part
            for part in image.segments
            if part.type == lief.ELF.Segment.TYPE.LOAD
            and part.virtual_address <= symbol.value < part.virtual_address + part.physical_size
        )
        condition = str(symbol.name).partition("_j")[2]
        sites.append(
            Site(
                offset=FileOffset(symbol.value - segment.virtual_address + segment.file_offset),
                kind=kind,
                reason="marked",
                condition=CONDITIONS.index(condition) if condition else -1,
            )
        )
    return FunctionPlan(
        name="probed",
        language="c",
        pairing=Pairing.STACK_POINTER,
        method=method,
        reason="",
        sites=tuple(sorted(sites, key=lambda site: (site.kind is not SiteKind.ENTRY, site.offset))),
    )
