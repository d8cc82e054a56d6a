"""What the agent of this host needs and has not got."""

from __future__ import annotations

from pathlib import Path

from coral.model.errors import FailedPrecondition

# Bit numbers of include/uapi/linux/capability.h.
_NEEDED = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_SYS_PTRACE": 19, "CAP_DAC_READ_SEARCH": 2}
_CAP_SYS_ADMIN = 21
_IMPLIED_BY_SYS_ADMIN = ("CAP_BPF", "CAP_PERFMON")


def missing_capabilities(status: str) -> list[str]:
    """The capabilities an agent needs that a process has not got.

    Args:
        status: The text of its /proc/PID/status.
    """
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    sys_admin = bool(effective >> _CAP_SYS_ADMIN & 1)
    return [
        name
        for name, bit in _NEEDED.items()
        if not effective >> bit & 1 and not (sys_admin and name in _IMPLIED_BY_SYS_ADMIN)
    ]


def check_privileges(command: str) -> None:
    """Passes when this process may attach probes.

    Args:
        command: What to run as root instead.

    Raises:
        FailedPrecondition: It may not; says what is missing and what works without.
    """
    missing = missing_capabilities(Path("/proc/self/status").read_text())
    if missing:
        raise FailedPrecondition(
            f"The agent attaches probes to other processes and needs root; this process lacks {', '.join(missing)}.",
            hint=f"Run `sudo {command}`. Without root these work: `coral colony start --insecure`, and every command that"
            " asks a colony (--colony HOST:PORT).",
        )
