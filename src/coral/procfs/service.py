"""Which service a process belongs to: the first rule that applies.

In order, by the word that ``service list`` shows: ``config`` (the agent's configuration), ``CORAL_SERVICE``,
``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` (its ``service.name``), ``systemd``, ``container``, ``argv0``,
``executable``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote

from coral.model.errors import InvalidArgument
from coral.model.probe import check_sdk_addr
from coral.model.text import MAX_NAME_BYTES, check_name, printable
from coral.procfs.argv0 import name_from_arguments
from coral.procfs.cgroup import container_of, unit_of
from coral.procfs.files import PROC
from coral.procfs.process import Process

CORAL_SERVICE = "CORAL_SERVICE"
OTEL_SERVICE_NAME = "OTEL_SERVICE_NAME"
OTEL_RESOURCE_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
CORAL_SDK_ADDR = "CORAL_SDK_ADDR"
CORAL_SDK_VERSION = "CORAL_SDK_VERSION"
NAMING_VARIABLES = (CORAL_SERVICE, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, CORAL_SDK_ADDR, CORAL_SDK_VERSION)
"""The variables that are looked for in ancestors when a process has written over its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRule:
    """One entry of ``services:`` in the agent's configuration. Every pattern that is given must match.

    Attributes:
        name: Of the service.
        executable: Shell pattern on the program's path, or on its base name when the pattern has no slash.
        cmdline: Regular expression, searched in the arguments joined by blanks.
        unit: Shell pattern on the systemd unit, with or without ``.service``.
        container: Shell pattern on the first 12 digits of the container's id.
        sdk_addr: Where the service's SDK answers; wins over its environment.

    Raises:
        InvalidArgument: A value cannot be right, or no pattern is given.
    """

    name: str
    executable: str = ""
    cmdline: str = ""
    unit: str = ""
    container: str = ""
    sdk_addr: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a service rule")
        check_sdk_addr(self.sdk_addr)
        if not (self.executable or self.cmdline or self.unit or self.container):
            raise InvalidArgument(
                f"The service rule {self.name!r} has no pattern and would match every process.",
                hint="Give executable, cmdline, unit or container.",
            )
        try:
            re.compile(self.cmdline)
        except re.error as error:
            raise InvalidArgument(
                f"cmdline of the service rule {self.name!r} is not a regular expression: {error}.",
                hint="Escape characters that are meant literally with a backslash.",
            ) from error

    def matches(self, process: Process) -> bool:
        """Whether the process is of this service."""
        path = process.executable
        return (
            (not self.executable or fnmatchcase(path if "/" in self.executable else _base(path), self.executable))
            and (not self.cmdline or re.search(self.cmdline, " ".join(process.cmdline)) is not None)
            and (not self.unit or fnmatchcase(unit_of(process.cgroup), self.unit.removesuffix(".service")))
            and (not self.container or fnmatchcase(container_of(process.cgroup), self.container))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The service of a process.

    Attributes:
        name: Printable, at most 1,024 bytes.
        rule: Which rule gave it.
        sdk_addr: Where its SDK says that it answers, on this host; empty when there is none.
        sdk_version: Of that SDK.
    """

    name: str
    rule: str
    sdk_addr: str = ""
    sdk_version: str = ""


def name_process(
    process: Process,
    *,
    rules: Sequence[ServiceRule] = (),
    inherited_environ: Mapping[str, str] | None = None,
    own_unit: str = "",
    proc: Path = PROC,
) -> Named | None:
    """The service of a process by the first rule that applies.

    Args:
        process: As it was read.
        rules: Of the agent's configuration, in order.
        inherited_environ: Variables known from an earlier reading or from ancestors; they fill in what
            ``process.environ`` does not have.
        own_unit: The agent's own systemd unit. It names no service: everything started by hand beside the agent is in it.
        proc: Where proc is mounted, to see what argv[0] links to.

    Returns:
        None for a kernel thread, and for a process that has no name at all.
    """
    if process.is_kernel_thread:
        return None
    environ = {**(inherited_environ or {}), **process.environ}
    name, rule, sdk_addr = "", "", ""
    for candidate in rules:
        if candidate.matches(process):
            name, rule, sdk_addr = candidate.name, "config", candidate.sdk_addr
            break
    else:
        name, rule = _name_from_environ(environ) or _name_from_place(process, own_unit, proc)
    if not name:
        return None
    return Named(
        name=name,
        rule=rule,
        sdk_addr=sdk_addr or _local_sdk_addr(environ.get(CORAL_SDK_ADDR, "")),
        sdk_version=safe_name(environ.get(CORAL_SDK_VERSION, "")),
    )


def safe_name(value: str) -> str:
    """``value`` as :func:`coral.model.text.check_name` accepts it: one printable line of at most 1,024 bytes, or ``""``."""
    return printable(value.strip()).encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _name_from_environ(environ: Mapping[str, str]) -> tuple[str, str] | None:
    for variable in (CORAL_SERVICE, OTEL_SERVICE_NAME):
        if name := safe_name(environ.get(variable, "")):
            return name, variable
    if name := safe_name(_otel_service_name(environ.get(OTEL_RESOURCE_ATTRIBUTES, ""))):
        return name, OTEL_RESOURCE_ATTRIBUTES
    return None


def _otel_service_name(attributes: str) -> str:
    """``service.name`` of ``key=value`` pairs with percent-encoded values (OpenTelemetry resource SDK specification)."""
    for pair in attributes.split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name":
            return unquote(value.strip())
    return ""


def _name_from_place(process: Process, own_unit: str, proc: Path) -> tuple[str, str]:
    """By where the process runs, else by what it runs."""
    unit = safe_name(unit_of(process.cgroup))
    if unit and unit != own_unit.removesuffix(".service"):
        return unit, "systemd"
    if container := container_of(process.cgroup):
        return container, "container"
    if name := safe_name(name_from_arguments(process, proc=proc)):
        return name, "argv0"
    return safe_name(_base(process.executable)), "executable"


def _local_sdk_addr(value: str) -> str:
    """The address if it is on this host: whoever may set a variable must not make the agent connect elsewhere."""
    try:
        return check_sdk_addr(value)
    except InvalidArgument:
        return ""


def _base(path: str) -> str:
    return path.rpartition("/")[2]
