"""``coral token``: what its commands take. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click

from coral.cli.options import DURATION, Globals

ROLES = ("viewer", "operator", "investigator", "admin")


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its holder may.")
@click.option("--expires", type=DURATION, metavar="DURATION", help="For how long it counts, at most a year. [default: 24h]")
@click.option("--service", "services", multiple=True, metavar="GLOB", help="A service that it is good for. [default: all]")
@click.pass_obj
def create(options: Globals, name: str, role: str, expires: int | None, services: tuple[str, ...]) -> None:
    """Make a token for the user NAME.

    It is printed once, on stdout, and cannot be read again: the colony keeps its hash alone.

    \b
    coral token create ann --role operator --expires 8h --service 'checkout*' > ann.token
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.tokens import create_token

    asyncio.run(create_token(options, name, role=role, life_ns=expires, services=services))


@click.command("list")
@click.option("--all", "ended", is_flag=True, help="Also those that expired or were revoked.")
@click.pass_obj
def list_tokens(options: Globals, ended: bool) -> None:
    """List the tokens of users, newest first, without their secrets."""
    import asyncio

    from coral.cli.tokens import show_tokens

    asyncio.run(show_tokens(options, ended=ended))


@click.command()
@click.argument("name")
@click.pass_obj
def revoke(options: Globals, name: str) -> None:
    """End the token of the user NAME at once, also where it is in use.

    Of a user of the identity provider (oidc:NAME), all that were issued until now; put them out there as well.
    """
    import asyncio

    from coral.cli.tokens import revoke_token

    asyncio.run(revoke_token(options, name))
