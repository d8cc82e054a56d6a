"""Every function of real programs, checked against what objdump says of them."""

from __future__ import annotations

import bisect
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from support import elf_images

from coral.elf import names
from coral.elf.plan import plan_functions
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.errors import FailedPrecondition
from coral.model.site import FunctionPlan, Method, SiteKind

pytestmark = pytest.mark.programs

_SPLIT = re.compile(r"\.(cold|part)(\.|$)")
_LEAST_SHARE = 0.97


def _find(name: str) -> Path:
    """The real file behind a program's name."""
    if name == "go":
        return elf_images.go_tool()
    versioned = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(versioned[-1]) if versioned else "")
    assert found, f"{name} is not installed"
    path = Path(found).resolve()
    assert path.read_bytes()[:4] == b"\x7fELF", f"{path} is no program"
    return path


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("nginx", ("ngx_http_process_request",)),
        ("redis-server", ("processCommand",)),
        ("postgres", ("PortalRun", "pg_parse_query")),
        ("go", ("main.main", "cmd/go/internal/load.(*Package).load")),
    ],
)
def test_every_site_is_an_instruction_and_every_exit_leaves(name: str, wanted: tuple[str, ...]) -> None:
    """No site is off objdump's boundaries, every exit is a return or a jump, no return is left out, few are refused."""
    path = _find(name)
    image = elf_images.program(path)
    listed = elf_images.listing(path)
    by_offset = {image.file.file_offset(vaddr): text for vaddr, text in listed.items()}
    returns = sorted(vaddr for vaddr, (_, text) in listed.items() if re.match(r"(repz |bnd )?ret", text))
    outcomes: Counter[str] = Counter()
    plans: dict[Function, FunctionPlan] = {}
    for function, plan, reason in _plans(image):
        outcomes[reason] += 1
        if plan is None:
            continue
        plans[function] = plan
        for site in plan.sites:
            code, text = by_offset[site.offset]
            assert code == site.original, f"{function.name} at {site.offset:#x}"
            if site.kind is SiteKind.RETURN:
                assert re.match(r"(repz |bnd )?ret", text), f"{function.name}: {text}"
            elif site.kind is SiteKind.TAIL:
                assert re.match(r"(bnd )?j", text), f"{function.name}: {text}"
    print(f"\n{path}: {sum(outcomes.values())} functions")
    for reason, count in outcomes.most_common():
        print(f"  {100 * count / sum(outcomes.values()):6.2f} %  {count:6}  {reason}")
    _check_returns(image, plans, returns)
    assert outcomes[Method.RET_SITES.value] / sum(outcomes.values()) > _LEAST_SHARE
    for each in wanted:
        assert names.find(image.symbols, each, name).functions[0] in plans


def _plans(image: Program) -> list[tuple[Function, FunctionPlan | None, str]]:
    """Each function once, with its plan, or the reason for which there is none."""
    found: list[tuple[Function, FunctionPlan | None, str]] = []
    seen: set[int] = set()
    for name, functions in image.symbols.by_name.items():
        for function in functions:
            if function.vaddr in seen or _SPLIT.search(name):
                continue
            seen.add(function.vaddr)
            try:
                plan = plan_functions(image, name, (function,))
                reason = f"{plan.method.value} {plan.reason.partition(' ')[2]}".strip()
                found.append((function, plan, re.sub(r"0x[0-9a-f]+", "N", reason)))
            except FailedPrecondition as error:
                found.append((function, None, re.sub(r"0x[0-9a-f]+", "N", error.message.partition(" ")[2])))
    return found


def _check_returns(image: Program, plans: dict[Function, FunctionPlan], returns: list[int]) -> None:
    """Every return that objdump sees in the range of a function is one of its exits."""
    for function, plan in plans.items():
        if plan.method is not Method.RET_SITES:
            continue
        inside = returns[bisect.bisect_left(returns, function.vaddr) : bisect.bisect_left(returns, function.end)]
        offsets = {image.file.file_offset(vaddr) for vaddr in inside}
        assert offsets <= elf_images.return_offsets(plan), function.name
