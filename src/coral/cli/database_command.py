"""``coral db query``."""

from __future__ import annotations

import click

from coral.cli.options import Globals


@click.command()
@click.argument("sql")
@click.pass_obj
def query(options: Globals, sql: str) -> None:
    """Ask the colony's database in SQL; reading only.

    \b
    coral db query 'SELECT service_name, count(*) FROM debug_sessions GROUP BY 1'
    coral db query 'SELECT max(duration_ns) FROM uprobe_events' -o json
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.database import show_query

    asyncio.run(show_query(options, sql))
