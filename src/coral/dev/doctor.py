"""What works on this host and what does not: each check tries the thing itself, and says what to do where it fails."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import duckdb

from coral.agent.trap_cost import TrapCosts
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.config.settings import AgentSettings, ColonySettings, load_agent_settings, load_colony_settings
from coral.dev.checks import Check, Status, failed, failed_by, passed, warned
from coral.dev.doctor_state import state_checks
from coral.dev.privileges import missing_capabilities
from coral.elf.image import ImageKey
from coral.elf.parser import Parser
from coral.kernel import libbpf
from coral.kernel.engine import Engine
from coral.model.errors import CoralError
from coral.wire.address import split_address

_ANSWER_S = 2.0
_APART_S = 0.5
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_PROBES = Path("/sys/bus/event_source/devices/uprobe")
_RING_BYTES = 1 << 20
_OPEN_CALLS = 4096
_TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 208  # sizeof(struct timex) of include/uapi/linux/timex.h on x86-64


async def examine(colony: Endpoint) -> list[Check]:
    """Checks everything, in the order in which one thing needs the other.

    Args:
        colony: The one that commands of this user ask.
    """
    checks = [_platform(), _privileges(), _kernel(), _libbpf()]
    checks.append(await _trying("probes", _probes))
    checks.append(await _trying("reading programs", _reading))
    checks.append(_clock())
    settings = await asyncio.to_thread(_settings)
    if isinstance(settings, Check):
        checks.append(settings)
    else:
        of_colony, of_agent = settings
        checks.append(passed("settings", "The settings of colony and agent can be read."))
        checks += await asyncio.to_thread(state_checks, of_colony, of_agent)
        checks.append(await asyncio.to_thread(_port, "colony port", of_colony.listen))
        checks.append(await asyncio.to_thread(_port, "agent port", of_agent.listen))
        for name, listen in (("colony metrics", of_colony.metrics_listen), ("agent metrics", of_agent.metrics_listen)):
            if listen:
                checks.append(await asyncio.to_thread(_port, name, listen))
    checks.append(_database())
    checks += await _colony(colony)
    return checks


async def _trying(name: str, check: Callable[[str], Awaitable[Check]]) -> Check:
    try:
        return await check(name)
    except CoralError as error:
        return failed_by(name, error)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        return Check(name=name, status=Status.FAIL, message=f"{what}.", hint="Run `sudo coral doctor`.")


def _platform() -> Check:
    here = os.uname()
    message = f"{here.sysname} {here.release} on {here.machine}, Python {sys.version.split()[0]}."
    if (here.sysname, here.machine) != ("Linux", "x86_64"):
        return Check(
            name="platform",
            status=Status.FAIL,
            message=message,
            hint="The agent needs Linux on x86-64; the colony and the command line run here.",
        )
    return passed("platform", message)


def _privileges() -> Check:
    missing = missing_capabilities(Path("/proc/self/status").read_text())
    if missing:
        return Check(
            name="privileges",
            status=Status.FAIL,
            message=f"This user lacks {', '.join(missing)}, so that an agent of it could attach nothing.",
            hint="Run `sudo coral doctor` to check what root's agent can do; the colony needs no privilege.",
        )
    return passed("privileges", "An agent of this user may attach probes.")


def _kernel() -> Check:
    """Whether the kernel is set up to keep even root from probing (kernel_lockdown(7)), or to forbid BPF."""
    try:
        mode = re.search(r"\[(\w+)\]", _LOCKDOWN.read_text())
    except OSError:  # it has no such thing, or does not show it
        mode = None
    if mode is not None and mode[1] == "confidentiality":
        return failed(
            "kernel",
            "The kernel is locked down for confidentiality, in which no program may read memory by BPF.",
            "Boot it without lockdown=confidentiality.",
        )
    if not _PROBES.exists():
        return failed(
            "kernel", "This kernel has no user probes (CONFIG_UPROBES).", "Run one that has, as distributions build them."
        )
    return passed("kernel", "It has user probes, and nothing that forbids them.")


def _libbpf() -> Check:
    try:
        library = libbpf.library()
    except CoralError as error:
        return failed_by("libbpf", error)
    return passed("libbpf", f"Version {library.libbpf_major_version()}.{library.libbpf_minor_version()}.")


async def _probes(name: str) -> Check:
    """Loads the programs, attaches them to a process of this one, and measures them."""
    engine = await asyncio.to_thread(Engine, ring_bytes=_RING_BYTES, max_open_calls=_OPEN_CALLS)
    try:
        cost = await TrapCosts(engine).cost()
    finally:
        await asyncio.to_thread(engine.close)
    return passed(
        name,
        f"Attached and detached ({', '.join(engine.methods)}). A hit costs {cost.emulated_ns / 1000:.1f} µs on an instruction"
        f" that the kernel emulates, {cost.stepped_ns / 1000:.1f} µs on another.",
    )


async def _reading(name: str) -> Check:
    """Reads a program in the confined process that does that."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        async with Parser() as parser:
            await parser.identify(fd, ImageKey.of_fd(fd), sys.executable)
            left_out = parser.left_out
    finally:
        os.close(fd)
    if left_out:
        return Check(
            name=name,
            status=Status.WARN,
            message=f"Programs are read in a process that is not fully confined: {'; '.join(left_out)}.",
            hint="As root, on a kernel with Landlock and seccomp, nothing is left out.",
        )
    return passed(name, "Programs are read in a process without privileges, files or network.")


def _clock() -> Check:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) != _TIME_ERROR:
        return passed("clock", "The wall clock is synchronised.")
    return Check(
        name="clock",
        status=Status.WARN,
        message="The wall clock is not synchronised; times of events of several hosts cannot be compared.",
        hint="Run chrony or systemd-timesyncd. Durations and deadlines do not depend on it.",
    )


def _settings() -> tuple[ColonySettings, AgentSettings] | Check:
    try:
        return load_colony_settings({}), load_agent_settings({})
    except CoralError as error:
        return failed_by("settings", error)


def _port(name: str, listen: str) -> Check:
    """Whether the port is free, or whatever has it answers."""
    try:
        host, port = split_address(listen)
    except CoralError as error:
        return failed_by(name, error)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Check(
                name=name,
                status=Status.WARN,
                message=f"{listen} is taken: by a daemon that runs already, or by another program.",
                hint=f"`ss -ltnp sport = :{port}` names it; --listen chooses another port.",
            )
        return Check(
            name=name, status=Status.FAIL, message=f"{listen} cannot be had: {error.strerror}.", hint="Change --listen."
        )
    return passed(name, f"{listen} is free.")


def _database() -> Check:
    try:
        with duckdb.connect() as connection:
            connection.execute("SELECT 1").fetchall()
    except duckdb.Error as error:
        return Check(
            name="database", status=Status.FAIL, message=f"DuckDB does not work: {error}.", hint="Install Coral anew."
        )
    return passed("database", f"DuckDB {duckdb.__version__}.")


async def _colony(endpoint: Endpoint) -> list[Check]:
    """Whether the colony of this user's commands answers and has agents, and whether its clock is this host's."""
    try:
        async with ColonyClient(endpoint) as client, asyncio.timeout(_ANSWER_S):
            agents = await client.agents()
            clock = await _colony_clock(client)
    except (CoralError, TimeoutError) as error:
        reason = error.message if isinstance(error, CoralError) else f"{endpoint.address} did not answer in {_ANSWER_S:g} s."
        return [
            warned(
                "colony",
                reason,
                "Start one with `coral dev` or `coral colony start --insecure`, or name it with --colony.",
            )
        ]
    online = sum(agent.status == "online" for agent in agents)
    message = f"The colony at {endpoint.address} answers; {online} of {len(agents)} agents are online."
    if not online:
        return [warned("colony", message, "Start one on each host: `coral agent start --insecure`."), *clock]
    return [passed("colony", message), *clock]


async def _colony_clock(client: ColonyClient) -> list[Check]:
    """Compares the wall clocks, by asking the colony's database for the time; nothing for who may not ask it."""
    before_ns = time.time_ns()
    try:
        found, _ = await client.query_database("SELECT epoch_us(now()) AS now_us")
    except CoralError:  # most users may not ask it
        return []
    after_ns = time.time_ns()
    theirs_ns = found.column("now_us")[0].as_py() * 1000
    apart_s = max(before_ns - theirs_ns, theirs_ns - after_ns, 0) / 1e9
    if apart_s < _APART_S:
        return [passed("colony clock", "This host's clock and the colony's agree.")]
    return [
        warned(
            "colony clock",
            f"This host's clock and the colony's are {apart_s:.1f} s apart: times of events of several hosts do not compare.",
            "Run chrony or systemd-timesyncd on both.",
        )
    ]
