"""``coral approval``: list, approve, deny."""

from __future__ import annotations

import click

from coral.cli.options import Globals


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are denied, used or expired.")
@click.pass_obj
def list_approvals(options: Globals, everything: bool) -> None:
    """List what waits for somebody's approval, and what is approved and not used yet."""
    import asyncio

    from coral.cli.approvals import show_approvals

    asyncio.run(show_approvals(options, everything=everything))


@click.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="For who asked, and for the audit log.")
@click.pass_obj
def approve(options: Globals, approval_id: str, reason: str) -> None:
    """Let somebody else do what they asked to do, once.

    It is good for exactly what `coral approval list` shows, and for a quarter of an hour unless the colony is set otherwise.
    Nobody approves their own requests.
    """
    import asyncio

    from coral.cli.approvals import decide

    asyncio.run(decide(options, approval_id, approve=True, reason=reason))


@click.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="For who asked, and for the audit log.")
@click.pass_obj
def deny(options: Globals, approval_id: str, reason: str) -> None:
    """Refuse what somebody else asked to do."""
    import asyncio

    from coral.cli.approvals import decide

    asyncio.run(decide(options, approval_id, approve=False, reason=reason))
