"""Prints what the registry knows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from coral.cli.documents import Document, agent_document, list_document, service_documents
from coral.cli.options import Globals
from coral.cli.output import emit_document, emit_line, narrate
from coral.cli.tables import emit_table
from coral.cli.times import local_moment
from coral.client.colony import ColonyClient
from coral.wire.convert import timestamp_ns


async def show_services(options: Globals) -> None:
    """Prints the services."""
    async with ColonyClient(options.endpoint()) as colony:
        items = service_documents(await colony.services())
    if options.form != "table":
        emit_items(options, items)
    elif not items:
        narrate("No service. Services appear within a second of their start, on hosts with an agent.")
    else:
        rows = [
            (
                item["name"],
                item["rule"],
                f"{item['instances']:,}",
                ", ".join(item["agents"]),
                f"{item['sdk']['version']} at {item['sdk']['addr']}" if item["sdk"]["enabled"] else "-",
            )
            for item in items
        ]
        emit_table(("NAME", "RULE", "INSTANCES", "AGENTS", "SDK"), rows, right=("INSTANCES",), color=options.color)


async def show_agents(options: Globals) -> None:
    """Prints the agents."""
    async with ColonyClient(options.endpoint()) as colony:
        agents = await colony.agents()
    if options.form != "table":
        emit_items(options, [agent_document(agent) for agent in agents])
    elif not agents:
        narrate("No agent. Start one as root with `coral agent start`, or colony and agent with `coral dev`.")
    else:
        rows = [
            (
                agent.agent_id,
                agent.address,
                f"{agent.status}, locked down" if agent.lockdown else agent.status,
                agent.version,
                local_moment(timestamp_ns(agent.last_seen_at), now_ns=time.time_ns()),
                agent.kernel,
                ", ".join(agent.methods),
            )
            for agent in agents
        ]
        emit_table(
            ("ID", "ADDRESS", "STATUS", "VERSION", "LAST SEEN", "KERNEL", "METHODS"),
            rows,
            whole=("ID", "ADDRESS", "STATUS"),
            color=options.color,
        )


def emit_items(options: Globals, items: Sequence[Document]) -> None:
    """Writes a list as one JSON document, or as a line per item."""
    if options.form == "json":
        emit_document(list_document(items))
        return
    for item in items:
        emit_line(item)
