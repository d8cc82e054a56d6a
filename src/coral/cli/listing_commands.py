"""``coral service list`` and ``coral agent list``."""

from __future__ import annotations

import click

from coral.cli.options import Globals


@click.command("list")
@click.pass_obj
def services(options: Globals) -> None:
    """List the services that can be debugged, and which rule gave each its name."""
    import asyncio

    from coral.cli.listings import show_services

    asyncio.run(show_services(options))


@click.command("list")
@click.pass_obj
def agents(options: Globals) -> None:
    """List the agents that the colony knows, one per host."""
    import asyncio

    from coral.cli.listings import show_agents

    asyncio.run(show_agents(options))
