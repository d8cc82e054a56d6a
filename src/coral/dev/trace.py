"""Runs a colony in memory and an agent for one process, attaches through them, and ends both."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from coral.agent.daemon import serve
from coral.cli.attach import run_attach
from coral.cli.options import Globals
from coral.colony.daemon import Colony
from coral.config.settings import AgentSettings, ColonySettings
from coral.dev.privileges import check_privileges
from coral.dev.supervisor import registered
from coral.model.errors import DeadlineExceeded, FailedPrecondition, NotFound
from coral.procfs.process import ProcessGone, read_process
from coral.procfs.table import ProcessTable
from coral.wire._generated.colony.v1 import debug_pb2

_ANY_PORT = "127.0.0.1:0"
_READY_S = 30.0


async def run_trace(options: Globals, pid: int, request: debug_pb2.AttachUprobeRequest, *, follow: bool) -> int:
    """Attaches to a function of one process, shows its calls, and leaves nothing behind.

    Args:
        options: The global options; the colony they name is not asked.
        pid: The process, in this process's pid namespace.
        request: What to attach, without the service.
        follow: Write each call as it comes.

    Returns:
        The exit code, as of ``run_attach``.

    Raises:
        FailedPrecondition: A privilege is missing, or the process is the kernel's or Coral's own.
        NotFound: There is no such process, or no such function in it.
        CoralError: As ``run_attach`` raises them.
    """
    check_privileges(f"coral trace {pid} FUNCTION")
    table, service = await asyncio.to_thread(_instances_of, pid)
    request.service_name = service
    async with _colony() as colony, _agent(colony, table):
        options.use_inside(colony)
        return await run_attach(options, request, follow=follow, wait=True)


def _instances_of(pid: int) -> tuple[ProcessTable, str]:
    """A table in which the process and what it forks are the only instances, and the name of their service."""
    try:
        id = read_process(pid).id
    except ProcessGone:
        raise NotFound(f"There is no process {pid}.", hint="`pgrep -l NAME` finds the pid of a program.") from None
    table = ProcessTable(only=id)
    table.refresh(thorough=True)
    entry = table.entry_of(pid)
    if entry is None:
        raise FailedPrecondition(
            f"Process {pid} cannot be traced: it is a kernel thread, has ended, or is Coral's own.",
            hint="Name a program's process.",
        )
    return table, entry.named.name


@asynccontextmanager
async def _colony() -> AsyncIterator[str]:
    """A colony that keeps everything in memory; where it serves."""
    stop = asyncio.Event()
    # Nothing is read from the user's settings: they are those of daemons, which this has nothing to do with.
    colony = Colony(ColonySettings(listen=_ANY_PORT, state_dir=Path("/nonexistent")), in_memory=True)
    address = await colony.start()
    running = asyncio.create_task(colony.run(stop))
    try:
        yield address
    finally:
        stop.set()
        await running


@asynccontextmanager
async def _agent(colony: str, table: ProcessTable) -> AsyncIterator[None]:
    """An agent for the processes of ``table``, known to the colony."""
    agent_id = socket.gethostname()
    settings = AgentSettings(
        listen=_ANY_PORT,
        state_dir=Path("/nonexistent"),
        colony=colony,
        agent_id=agent_id,
        deny_by_default=(),  # a host's policy is for what others ask; this is root, on the host, naming a process
    )
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(serve(settings, table=table, stop=stop, on_ready=lambda _: ready.set()))
    up = asyncio.create_task(registered(colony, agent_id))
    try:
        await asyncio.wait({running, up}, timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        if not up.done():
            raise DeadlineExceeded(f"The agent was not ready after {_READY_S:.0f} s.", hint="See more with -v.")
        await up
        yield
    finally:
        up.cancel()
        stop.set()
        await asyncio.wait({running, up})
