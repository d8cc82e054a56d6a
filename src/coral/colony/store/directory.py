"""Agents and the services they see, as the control file keeps them. ``put_*`` are jobs for ``Database.write``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from coral.model.service import Agent, Service

_AGENT = pa.schema(
    [
        ("agent_id", pa.string()),
        ("address", pa.string()),
        ("version", pa.string()),
        ("hostname", pa.string()),
        ("boot_id", pa.string()),
        ("kernel", pa.string()),
        ("methods", pa.list_(pa.string())),
        ("last_seen_us", pa.int64()),
    ]
)
_SEEN = pa.schema([("agent_id", pa.string()), ("last_seen_us", pa.int64())])
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


def put_agents(connection: duckdb.DuckDBPyConnection, agents: Sequence[Agent]) -> None:
    """Inserts or replaces the rows of agents: one statement each for all of them, since a thousand may come at once."""
    _delete(connection, "agents", [agent.agent_id for agent in agents])
    names = [name for name in _AGENT.names if name != "last_seen_us"]
    rows = [
        {**{name: getattr(agent, name) for name in names}, "last_seen_us": agent.last_seen_at_ns // 1000} for agent in agents
    ]
    connection.register("new_agents", pa.Table.from_pylist(rows, schema=_AGENT))
    connection.execute("INSERT INTO agents SELECT * REPLACE (make_timestamptz(last_seen_us) AS last_seen_us) FROM new_agents")
    connection.unregister("new_agents")


def put_services(connection: duckdb.DuckDBPyConnection, seen: Mapping[str, Sequence[Service]]) -> None:
    """Replaces what some agents see: agent id to its services."""
    _delete(connection, "services", list(seen))
    rows = [{name: getattr(service, name) for name in _SERVICE.names} for services in seen.values() for service in services]
    if rows:
        connection.register("new_services", pa.Table.from_pylist(rows, schema=_SERVICE))
        connection.execute("INSERT INTO services SELECT * FROM new_services")
        connection.unregister("new_services")


def _delete(connection: duckdb.DuckDBPyConnection, table: str, agent_ids: list[str]) -> None:
    """Deletes what a table has of agents, by a join: a search in a list, for each row, is quadratic."""
    connection.register("leaving", pa.table([agent_ids], names=["agent_id"]))
    connection.execute(f"DELETE FROM {table} WHERE agent_id IN (SELECT agent_id FROM leaving)")
    connection.unregister("leaving")


def put_last_seen(connection: duckdb.DuckDBPyConnection, last_seen_ns: Mapping[str, int]) -> None:
    """Notes when agents were last heard of: agent id to ns since the epoch."""
    times = pa.table([list(last_seen_ns), [when_ns // 1000 for when_ns in last_seen_ns.values()]], schema=_SEEN)
    connection.register("heard_of", times)
    connection.execute(
        """
        UPDATE agents SET last_seen_at = make_timestamptz(heard_of.last_seen_us)
        FROM heard_of WHERE agents.agent_id = heard_of.agent_id
        """
    )
    connection.unregister("heard_of")


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
