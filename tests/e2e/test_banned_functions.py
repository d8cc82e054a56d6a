"""A policy that bans a function of a real program bans it however it is written. Needs root: the agent reads the programs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support import build, elf_images
from support.cli import clean_environment
from support.running_colony import attach_request
from support.target import running
from support.text import changed_text

from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import CoralError, PermissionDenied

CORAL = [sys.executable, "-m", "coral"]
pytestmark = pytest.mark.kernel

# One way of writing each; the Rust one with whatever hash this build has.
POLICY = """
@id("no-cpp") forbid (principal, action, resource) when { context.function == "Square::area" };
@id("no-alias") forbid (principal, action, resource) when { context.function == "__libc_malloc" };
@id("no-template") forbid (principal, action, resource) when { context.function == "sum_of<long>" };
@id("no-go") forbid (principal, action, resource) when { context.function == "main.ProcessPayment" };
@id("no-rust") forbid (principal, action, resource) when { context.function == "hazards::larger_of" };
"""
CPP = (
    "Square::area", "Square::area(long)", "Square::area(long) const", "_ZNK6Square4areaEl", "hazards!Square::area(long)",
    "sum_of<long>", "sum_of", "sum_of<long>(long, long)", "_Z6sum_ofIlET_S0_S0_", "hazards!sum_of<long>",
    "malloc", "libc.so.6!malloc", "libc.so.6!__libc_malloc", "__libc_malloc",
)  # fmt: skip
GO = ("ProcessPayment", "main.ProcessPayment", "truth!main.ProcessPayment", "truth!ProcessPayment")
RUST = ("larger_of", "hazards::larger_of", "hazards!larger_of")


@contextmanager
def dev(folder: Path) -> Iterator[tuple[Endpoint, list[str], dict[str, str]]]:
    """A ``coral dev --auth`` with the policy: the colony as its admin reaches it, and the command line for that."""
    (folder / "policies").mkdir()
    (folder / "policies/ban.cedar").write_text(POLICY)
    environment = clean_environment({"CORAL_COLONY__POLICY_DIR": str(folder / "policies"), "XDG_CONFIG_HOME": str(folder)})
    command = [*CORAL, "dev", "--auth", "--colony-port", "0", "--agent-port", "0", "--state-dir", str(folder / "state")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr
        facts = json.loads(process.stderr.readline())
        ca, token = Path(facts["ca"]), Path(facts["token_file"]).read_text().strip()
        endpoint = Endpoint(address=facts["colony"], ca_pem=ca.read_bytes(), token=token)
        yield endpoint, [*CORAL, "--colony", facts["colony"], "--ca", str(ca)], {**environment, "CORAL_TOKEN": token}
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def _outcomes(colony: Endpoint, service: str, functions: Sequence[str]) -> dict[str, str]:
    """What the attach of each function came to: the policy that refused it, or the name of another error, or ``attached``."""
    found = {}
    async with ColonyClient(colony) as client:
        for function in functions:
            try:
                session = await client.attach(attach_request(service=service, function=function))
            except PermissionDenied as error:
                found[function] = error.details.get("policy", "")
            except CoralError as error:
                found[function] = error.code
            else:
                found[function] = "attached"
                await client.detach(session.session_id)
    return found


def test_a_banned_function_is_refused_in_every_way_of_writing_it(tmp_path: Path) -> None:
    """Not one attach gets through, admins are no exception, and nothing is changed; what is not banned is attached."""
    rust = build.rust_program("hazards")
    hashed = [name for name in elf_images.program(rust).symbols.by_name if "larger_of" in name]
    with ExitStack() as stack:
        cpp = stack.enter_context(running(build.cpp_program("hazards")))
        go = stack.enter_context(running(build.go_program("truth")))
        crab = stack.enter_context(running(rust))
        colony, coral, environment = stack.enter_context(dev(tmp_path))
        outcomes = {
            **asyncio.run(_outcomes(colony, cpp.service, (*CPP, "Square::id"))),
            **asyncio.run(_outcomes(colony, go.service, (*GO, "main.Work"))),
            **asyncio.run(_outcomes(colony, crab.service, (*RUST, *hashed, "hazards::dropped"))),
        }
        line = [*coral, "debug", "attach", go.service, "-f", "ProcessPayment", "-d", "5s"]
        refused = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert [changed_text(target.pid) for target in (cpp, go, crab)] == [[], [], []]
    allowed = {name for name, outcome in outcomes.items() if outcome == "attached"}
    assert allowed == {"Square::id", "main.Work", "hazards::dropped"}
    by = {"Square": "no-cpp", "6Square": "no-cpp", "sum_of": "no-template", "malloc": "no-alias", "Payment": "no-go"}
    expected = {
        name: next((policy for part, policy in by.items() if part in name), "no-rust")
        for name in outcomes
        if name not in allowed
    }
    assert {name: outcome for name, outcome in outcomes.items() if name not in allowed} == expected
    assert refused.returncode == 7
    assert "It is about 'main.ProcessPayment', which 'ProcessPayment' stands for." in refused.stderr
