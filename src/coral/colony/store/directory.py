"""Agents and the services they see, as the control file keeps them. ``put_*`` are jobs for ``Database.write``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from coral.model.service import Agent, Service

_SERVICE = pa.schema(
    [
        ("name", pa.string()),
        ("agent_id", pa.string()),
        ("instances", pa.uint32()),
        ("rule", pa.string()),
        ("sdk_enabled", pa.bool_()),
        ("sdk_addr", pa.string()),
        ("sdk_version", pa.string()),
    ]
)


def put_agent(connection: duckdb.DuckDBPyConnection, agent: Agent) -> None:
    """Inserts or replaces the row of an agent."""
    connection.execute("DELETE FROM agents WHERE agent_id = ?", [agent.agent_id])
    connection.execute(
        "INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?, ?, make_timestamptz(?::BIGINT))",
        [
            agent.agent_id, agent.address, agent.version, agent.hostname, agent.boot_id, agent.kernel,
            list(agent.methods), agent.last_seen_at_ns // 1000,
        ],
    )  # fmt: skip


def put_services(connection: duckdb.DuckDBPyConnection, seen: Mapping[str, Sequence[Service]]) -> None:
    """Replaces what some agents see: agent id to its services."""
    connection.execute("DELETE FROM services WHERE list_contains(?::VARCHAR[], agent_id)", [list(seen)])
    rows = [{name: getattr(service, name) for name in _SERVICE.names} for services in seen.values() for service in services]
    if rows:
        connection.register("new_services", pa.Table.from_pylist(rows, schema=_SERVICE))
        connection.execute("INSERT INTO services SELECT * FROM new_services")
        connection.unregister("new_services")


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
