"""``coral agent invite|revoke``: what they take. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click

from coral.cli.options import DURATION, Globals


@click.command()
@click.option(
    "--expires", type=DURATION, metavar="DURATION", help="For how long it can be used, at most 168h. [default: 10m]"
)
@click.option("--agent-id", metavar="NAME", default="", help="Who may join with it. [default: any agent whose name is free]")
@click.option("--reason", default="", help="Why, for the audit log.")
@click.pass_obj
def invite(options: Globals, expires: int | None, agent_id: str, reason: str) -> None:
    """Make an invitation with which one host can join the colony, once.

    It is printed on stdout, and cannot be read again. On the host, as root:

    \b
    coral agent start --colony HOST:PORT --join TOKEN
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.enrolment import make_invitation

    asyncio.run(make_invitation(options, life_ns=expires, agent_id=agent_id, reason=reason))


@click.command()
@click.argument("agent_id")
@click.option("--reason", default="", help="Why, for the audit log.")
@click.pass_obj
def revoke(options: Globals, agent_id: str, reason: str) -> None:
    """Put the agent AGENT_ID out of the colony at once.

    Its sessions go on elsewhere; what it has attached it detaches when it is told so, and at the latest at the deadlines.
    """
    import asyncio

    from coral.cli.enrolment import revoke_agent

    asyncio.run(revoke_agent(options, agent_id, reason=reason))
