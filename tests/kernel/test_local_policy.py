"""What an agent's own policy forbids is not attached, whoever asks, and what is spared carries no breakpoint of others."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import build
from support.agent_parts import collectors_on, probe_of
from support.cli import clean_environment
from support.target import running, unique_service
from support.text import changed_text

from coral.agent.collector import Collector
from coral.agent.naming import Naming, NotAuthorised
from coral.agent.policy import LocalPolicy
from coral.agent.readback import breakpoints
from coral.config.settings import AgentSettings
from coral.kernel.engine import Engine
from coral.model.errors import PermissionDenied
from coral.model.session import InstanceStatus

pytestmark = pytest.mark.kernel


@pytest.fixture
def engine() -> Iterator[Engine]:
    """The kernel layer, small."""
    engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    yield engine
    engine.close()


async def _attached(engine: Engine, policy: LocalPolicy, service: str, *functions: str) -> list[Collector | PermissionDenied]:
    """What comes of each function under a policy: its collector, stopped again, or the refusal."""
    found: list[Collector | PermissionDenied] = []
    async with collectors_on(engine, policy=policy) as collectors:
        for function in functions:
            spec = probe_of(service, function)
            try:
                collector = await collectors.start(spec, session_id="", of_colony=True, actor="colony")
            except PermissionDenied as error:
                found.append(error)
            else:
                found.append(await collectors.stop(collector.collector_id))
    return found


def test_a_denied_program_is_refused_to_the_colony_too(engine: Engine, tmp_path: Path) -> None:
    """Alone it is the whole attach that is refused; beside others it is one instance, with the rule as its reason."""
    policy = LocalPolicy.of(AgentSettings())
    vault = shutil.copy(build.c_program("loop"), tmp_path / "vault")
    service = unique_service("mixed")
    with running(vault, service=service) as denied:
        (refused,) = asyncio.run(_attached(engine, policy, service, "work"))
        with running(build.c_program("loop"), service=service) as allowed:
            (collector,) = asyncio.run(_attached(engine, policy, service, "work"))
    assert f"denies process {denied.pid} ({vault}): it keeps secrets (rule agent.deny_by_default[" in str(refused)
    assert isinstance(collector, Collector)
    found = {instance.pid: (instance.status, instance.reason) for instance in collector.instances}
    assert found[allowed.pid] == (InstanceStatus.DETACHED, "")
    assert found[denied.pid][0] is InstanceStatus.FAILED
    assert "rule agent.deny_by_default[" in found[denied.pid][1]


def test_a_denied_function_is_denied_by_every_name_of_it(engine: Engine) -> None:
    """Another symbol at its address is no way around the rule."""
    policy = LocalPolicy.of(AgentSettings(deny=[{"function": "malloc", "reason": "ours"}]))  # type: ignore[list-item]
    with running(build.c_program("loop")) as target:
        functions = ("libc.so.6!malloc", "libc.so.6!__libc_malloc", "libc.so.6!free")
        *denied, allowed = asyncio.run(_attached(engine, policy, target.service, *functions))
    assert all("rule agent.deny[0]" in str(refused) for refused in denied)
    assert isinstance(allowed, Collector)


def test_only_what_the_colony_has_decided_about_is_probed(engine: Engine, tmp_path: Path) -> None:
    """Nothing is attached before; a process that comes later with another one is left alone until that is permitted too."""
    service, other = unique_service("mixed"), shutil.copy(build.c_program("loop"), tmp_path / "newer")
    spec = probe_of(service, "work")

    async def scenario() -> tuple[list[InstanceStatus], list[InstanceStatus]]:
        async with collectors_on(engine) as collectors:
            naming = Naming(collectors._attacher._resolver, collectors._processes, LocalPolicy())

            async def start(*marks: bytes) -> Collector:
                return await collectors.start(
                    spec, session_id="S1", of_colony=True, actor="colony", authorised=frozenset(marks)
                )

            with running(build.c_program("loop"), service=service) as first:
                (found,) = await naming.of(service, "work")
                with pytest.raises(NotAuthorised, match="were not asked about work of loop"):
                    await start()
                assert (changed_text(first.pid), collectors.running) == ([], [])
                collector = await start(found.mark)
                with running(other, service=service) as second:
                    await collectors._attacher.join(collector, await collectors._processes.instances(service))
                    assert len(collector.unauthorised) == 1
                    alone = [instance.status for instance in collector.instances]
                    assert changed_text(second.pid) == []
                    marks = [one.mark for one in await naming.of(service, "work")]
                    assert await start(*marks) is collector
                    assert not collector.unauthorised
                    return alone, [instance.status for instance in collector.instances]

    attached, failed = InstanceStatus.ATTACHED, InstanceStatus.FAILED
    assert asyncio.run(scenario()) == ([attached, failed], [attached, attached])


def test_coral_itself_gets_no_breakpoint_of_a_service_in_the_same_python(engine: Engine) -> None:
    """A service that runs the interpreter that the agent runs is probed alone: the agent's own text stays as it is."""
    service = unique_service("interpreted")
    program = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=clean_environment({"CORAL_SERVICE": service})
    )
    try:
        missing = asyncio.run(_breakpoints_missing(engine, service, (program.pid, os.getpid())))
    finally:
        program.kill()
        program.communicate()
    sites, in_service, in_agent = missing
    assert sites > 0
    assert (in_service, in_agent) == (0, sites)


async def _breakpoints_missing(engine: Engine, service: str, pids: tuple[int, int]) -> tuple[int, int, int]:
    """How many sites a function of the interpreter has, and how many of them carry no breakpoint, in each process."""
    async with collectors_on(engine) as collectors:
        collector = await collectors.start(
            probe_of(service, "PyObject_GetAttrString"), session_id="", of_colony=True, actor="colony"
        )
        (group,) = collector.groups.values()
        missing = [len(breakpoints(pid, group.key, group.plan.sites)) for pid in pids]
        return len(group.plan.sites), missing[0], missing[1]
