"""``coral login``: what it takes. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click

from coral.cli.options import Globals


@click.command()
@click.option("--name", metavar="NAME", help="How to call the context. [default: the colony's address]")
@click.pass_obj
def login(options: Globals, name: str | None) -> None:
    """Keep a token for a colony, so that commands use it.

    The token is asked for, or read from the first line of stdin. It is shown to the colony first, and kept in a file that
    only you can read, together with the colony's certificate, as a context that is used from then on.

    \b
    coral login --colony colony.example.com:8081 --ca ca.pem
    coral login < new.token
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.login import run_login

    asyncio.run(run_login(options, name=name))
