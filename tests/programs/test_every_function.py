"""Every function of real programs, checked against what objdump says of them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from support import elf_images

from coral.elf.plan import plan_functions
from coral.elf.program import Program
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
        ("go", ("main.main", "cmd/go/internal/base.Exit")),
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
    plans: dict[str, FunctionPlan] = {}
    for function_name, plan, reason in _plans(image):
        outcomes[reason] += 1
        if plan is None:
            continue
        plans[function_name] = plan
        for site in plan.sites:
            code, text = by_offset[site.offset]
            assert code == site.original, f"{function_name} at {site.offset:#x}"
            if site.kind is SiteKind.RETURN:
                assert re.match(r"(repz |bnd )?ret", text), f"{function_name}: {text}"
            elif site.kind is SiteKind.TAIL:
                assert re.match(r"(bnd )?j", text), f"{function_name}: {text}"
    print(f"\n{path}: {sum(outcomes.values())} functions")
    for reason, count in outcomes.most_common():
        print(f"  {100 * count / sum(outcomes.values()):6.2f} %  {count:6}  {reason}")
    _check_returns(image, plans, returns)
    assert outcomes[Method.RET_SITES.value] / sum(outcomes.values()) > _LEAST_SHARE
    for each in wanted:
        assert plans[each].method is Method.RET_SITES or "never returns" in plans[each].reason


def _plans(image: Program) -> list[tuple[str, FunctionPlan | None, str]]:
    """Each function once, with its plan, or the reason for which there is none."""
    found: list[tuple[str, FunctionPlan | None, str]] = []
    seen: set[int] = set()
    for name, functions in image.symbols.by_name.items():
        for function in functions:
            if function.vaddr in seen or _SPLIT.search(name):
                continue
            seen.add(function.vaddr)
            try:
                plan = plan_functions(image, name, (function,))
                reason = f"{plan.method.value} {plan.reason.partition(' ')[2]}".strip()
                found.append((name, plan, re.sub(r"0x[0-9a-f]+", "N", reason)))
            except FailedPrecondition as error:
                found.append((name, None, re.sub(r"0x[0-9a-f]+", "N", error.message.partition(" ")[2])))
    return found


def _check_returns(image: Program, plans: dict[str, FunctionPlan], returns: list[int]) -> None:
    """Every return that objdump sees in the range of a function is one of its exits."""
    owners = {}
    for name in plans:
        for function in image.symbols.by_name[name]:
            owners[function.vaddr] = (function.end, name)
    starts = sorted(owners)
    position = 0
    for vaddr in returns:
        while position + 1 < len(starts) and starts[position + 1] <= vaddr:
            position += 1
        end, name = owners[starts[position]]
        if starts[position] <= vaddr < end and plans[name].method is Method.RET_SITES:
            assert image.file.file_offset(vaddr) in elf_images.return_offsets(plans[name]), f"{name} at {vaddr:#x}"
