"""``coral debug session``: list, get, events, stop."""

from __future__ import annotations

import click

from coral.cli.options import MOMENT, Globals

_STATUSES = ("pending", "active", "expired", "detached", "failed", "lost")


@click.command("list")
@click.option("--service", default="", help="Only of this service.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only in this state.")
@click.pass_obj
def list_sessions(options: Globals, service: str, status: str | None) -> None:
    """List sessions, running and ended.

    Ended sessions stay until the colony's retention time is over.
    """
    import asyncio

    from coral.cli.sessions import show_sessions

    asyncio.run(show_sessions(options, service=service, status=status or ""))


@click.command()
@click.argument("session_id", metavar="ID")
@click.pass_obj
def get(options: Globals, session_id: str) -> None:
    """Show one session."""
    import asyncio

    from coral.cli.sessions import show_one

    asyncio.run(show_one(options, session_id))


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("--since", type=MOMENT, metavar="TIME", help="From this time on: RFC 3339, or a duration ago.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Before this time, likewise.")
@click.option("--limit", type=click.IntRange(min=0), default=1000, show_default=True, metavar="N", help="0 for all.")
@click.pass_obj
def events(options: Globals, session_id: str, since: int | None, until: int | None, limit: int) -> None:
    """Show the calls that a session saw, in the order of their time."""
    import asyncio

    from coral.cli.events import show_events

    asyncio.run(show_events(options, session_id, since_ns=since, until_ns=until, limit=limit))


@click.command()
@click.argument("session_id", metavar="ID")
@click.pass_obj
def stop(options: Globals, session_id: str) -> None:
    """End a session, and show it.

    A session that has ended stays as it is.
    """
    import asyncio

    from coral.cli.sessions import stop_one

    asyncio.run(stop_one(options, session_id))
