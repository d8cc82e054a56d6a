"""What works on this host and what does not: each check tries the thing itself, and says what to do where it fails."""

from __future__ import annotations

import asyncio
import ctypes
import enum
import errno
import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from coral.agent.trap_cost import TrapCosts
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.config.settings import AgentSettings, ColonySettings, load_agent_settings, load_colony_settings
from coral.dev.privileges import missing_capabilities
from coral.elf.image import ImageKey
from coral.elf.parser import Parser
from coral.kernel import libbpf
from coral.kernel.engine import Engine
from coral.model.errors import CoralError
from coral.wire.address import split_address

_ANSWER_S = 2.0
_RING_BYTES = 1 << 20
_OPEN_CALLS = 4096
_TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 208  # sizeof(struct timex) of include/uapi/linux/timex.h on x86-64
_MIB = 1 << 20


class Status(enum.StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: Which.
        status: What was found.
        message: The finding, in a sentence.
        hint: What to do about it; empty when nothing is to be done.
    """

    name: str
    status: Status
    message: str
    hint: str = ""

    def document(self) -> dict[str, Any]:
        """As ``-o json`` has it."""
        return asdict(self)


async def examine(colony: Endpoint) -> list[Check]:
    """Checks everything, in the order in which one thing needs the other.

    Args:
        colony: The one that commands of this user ask.
    """
    checks = [_platform(), _privileges(), _libbpf()]
    checks.append(await _trying("probes", _probes))
    checks.append(await _trying("reading programs", _reading))
    checks.append(_clock())
    settings = await asyncio.to_thread(_settings)
    if isinstance(settings, Check):
        checks.append(settings)
    else:
        of_colony, of_agent = settings
        checks.append(_passed("settings", "The settings of colony and agent can be read."))
        checks.append(await asyncio.to_thread(_state, of_colony))
        checks.append(await asyncio.to_thread(_port, "colony port", of_colony.listen))
        checks.append(await asyncio.to_thread(_port, "agent port", of_agent.listen))
    checks.append(_database())
    checks.append(await _colony(colony))
    return checks


def _passed(name: str, message: str) -> Check:
    return Check(name=name, status=Status.OK, message=message)


def _failed(name: str, error: CoralError) -> Check:
    return Check(name=name, status=Status.FAIL, message=error.message, hint=error.hint)


async def _trying(name: str, check: Callable[[str], Awaitable[Check]]) -> Check:
    try:
        return await check(name)
    except CoralError as error:
        return _failed(name, error)
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
    return _passed("platform", message)


def _privileges() -> Check:
    missing = missing_capabilities(Path("/proc/self/status").read_text())
    if missing:
        return Check(
            name="privileges",
            status=Status.FAIL,
            message=f"This user lacks {', '.join(missing)}, so that an agent of it could attach nothing.",
            hint="Run `sudo coral doctor` to check what root's agent can do; the colony needs no privilege.",
        )
    return _passed("privileges", "An agent of this user may attach probes.")


def _libbpf() -> Check:
    try:
        library = libbpf.library()
    except CoralError as error:
        return _failed("libbpf", error)
    return _passed("libbpf", f"Version {library.libbpf_major_version()}.{library.libbpf_minor_version()}.")


async def _probes(name: str) -> Check:
    """Loads the programs, attaches them to a process of this one, and measures them."""
    engine = await asyncio.to_thread(Engine, ring_bytes=_RING_BYTES, max_open_calls=_OPEN_CALLS)
    try:
        cost = await TrapCosts(engine).cost()
    finally:
        await asyncio.to_thread(engine.close)
    return _passed(
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
    return _passed(name, "Programs are read in a process without privileges, files or network.")


def _clock() -> Check:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) != _TIME_ERROR:
        return _passed("clock", "The wall clock is synchronised.")
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
        return _failed("settings", error)


def _state(settings: ColonySettings) -> Check:
    """Whether the state directory, or where it will be made, can be written, and whether there is room."""
    name, wanted = "state", settings.state_dir
    existing = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(
            name=name,
            status=Status.FAIL,
            message=f"{existing} cannot be written by this user.",
            hint="Run as its owner, or give another folder with --state-dir.",
        )
    free_bytes = shutil.disk_usage(existing).free
    message = f"{wanted} has {free_bytes // _MIB:,} MiB of free space"
    if free_bytes < settings.min_free_bytes:
        return Check(
            name=name,
            status=Status.FAIL,
            message=f"{message}, less than colony.min_free_bytes: events would be dropped.",
            hint="Free some, or give another folder with --state-dir.",
        )
    return _passed(name, f"{message}.")


def _port(name: str, listen: str) -> Check:
    """Whether the port is free, or whatever has it answers."""
    try:
        host, port = split_address(listen)
    except CoralError as error:
        return _failed(name, error)
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
    return _passed(name, f"{listen} is free.")


def _database() -> Check:
    try:
        with duckdb.connect() as connection:
            connection.execute("SELECT 1").fetchall()
    except duckdb.Error as error:
        return Check(
            name="database", status=Status.FAIL, message=f"DuckDB does not work: {error}.", hint="Install Coral anew."
        )
    return _passed("database", f"DuckDB {duckdb.__version__}.")


async def _colony(endpoint: Endpoint) -> Check:
    """Whether the colony of this user's commands answers, and has agents."""
    try:
        async with ColonyClient(endpoint) as client, asyncio.timeout(_ANSWER_S):
            agents = await client.agents()
    except (CoralError, TimeoutError) as error:
        reason = error.message if isinstance(error, CoralError) else f"{endpoint.address} did not answer in {_ANSWER_S:g} s."
        return Check(
            name="colony",
            status=Status.WARN,
            message=reason,
            hint="Start one with `coral dev` or `coral colony start --insecure`, or name it with --colony.",
        )
    online = sum(agent.status == "online" for agent in agents)
    message = f"The colony at {endpoint.address} answers; {online} of {len(agents)} agents are online."
    if not online:
        return Check(
            name="colony", status=Status.WARN, message=message, hint="Start one on each host: `coral agent start --insecure`."
        )
    return _passed("colony", message)
