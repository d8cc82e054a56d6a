"""Services and the agents that see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service on one host.

    Attributes:
        name: As rule ``rule`` gave it.
        agent_id: Which host.
        instances: How many processes.
        rule: Which rule gave the name: config, CORAL_SERVICE, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, systemd,
            container, argv0 or executable.
        sdk_enabled: Whether an SDK runs in it.
        sdk_addr: Where that answers.
        sdk_version: Its version.
    """

    name: str
    agent_id: str
    instances: int
    rule: str
    sdk_enabled: bool = False
    sdk_addr: str = ""
    sdk_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One host as the colony knows it.

    Attributes:
        agent_id: Its name.
        address: Where the colony reaches it, HOST:PORT.
        version: Of Coral there.
        hostname: Of the host.
        boot_id: New for each life of the agent.
        kernel: Release of the kernel.
        methods: Ways of attaching that the host offers.
        last_seen_at_ns: Wall clock of its last heartbeat.
        online: Whether its heartbeats arrive.
        lockdown: Since when and why it attaches nothing; empty when it does.
    """

    agent_id: str
    address: str
    version: str
    hostname: str
    boot_id: str
    kernel: str
    methods: tuple[str, ...]
    last_seen_at_ns: int
    online: bool
    lockdown: str = ""
