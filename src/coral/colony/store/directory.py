"""Agents and the services they see, as the control file keeps them. ``put_*`` are jobs for ``Database.write``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from coral.model.service import Agent, Service


def put_agent(connection: duckdb.DuckDBPyConnection, agent: Agent) -> None:
    """Inserts or replaces the row of an agent."""
    connection.execute(
        "INSERT OR REPLACE INTO agents VALUES (?, ?, ?, ?, ?, ?, ?, make_timestamptz(?::BIGINT))",
        [
            agent.agent_id, agent.address, agent.version, agent.hostname, agent.boot_id, agent.kernel,
            list(agent.methods), agent.last_seen_at_ns // 1000,
        ],
    )  # fmt: skip


def put_services(connection: duckdb.DuckDBPyConnection, agent_id: str, services: Sequence[Service]) -> None:
    """Replaces what an agent sees."""
    connection.execute("DELETE FROM services WHERE agent_id = ?", [agent_id])
    for service in services:
        connection.execute(
            "INSERT INTO services VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                service.name, agent_id, service.instances, service.rule, service.sdk_enabled, service.sdk_addr,
                service.sdk_version,
            ],
        )  # fmt: skip


def put_last_seen(connection: duckdb.DuckDBPyConnection, last_seen_ns: Mapping[str, int]) -> None:
    """Notes when agents were last heard of: agent id to ns since the epoch."""
    for agent_id, when_ns in last_seen_ns.items():
        connection.execute(
            "UPDATE agents SET last_seen_at = make_timestamptz(?::BIGINT) WHERE agent_id = ?", [when_ns // 1000, agent_id]
        )


def load(connection: duckdb.DuckDBPyConnection) -> tuple[list[Agent], list[Service]]:
    """All agents, as offline, and all that they saw."""
    agents = [
        Agent(
            agent_id=row[0],
            address=row[1],
            version=row[2],
            hostname=row[3],
            boot_id=row[4],
            kernel=row[5],
            methods=tuple(row[6]),
            last_seen_at_ns=row[7],
            online=False,
        )
        for row in connection.execute(
            "SELECT agent_id, address, version, hostname, boot_id, kernel, methods, epoch_ns(last_seen_at) FROM agents"
        ).fetchall()
    ]
    services = [
        Service(
            name=row[0],
            agent_id=row[1],
            instances=row[2],
            rule=row[3],
            sdk_enabled=row[4],
            sdk_addr=row[5],
            sdk_version=row[6],
        )
        for row in connection.execute(
            "SELECT name, agent_id, instances, rule, sdk_enabled, sdk_addr, sdk_version FROM services"
        ).fetchall()
    ]
    return agents, services
