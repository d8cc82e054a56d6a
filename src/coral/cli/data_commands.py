"""``coral data purge``: what it takes."""

from __future__ import annotations

import click

from coral.cli.options import MOMENT, Globals


@click.command()
@click.option("--before", type=MOMENT, metavar="TIME", help="What ended before this time: RFC 3339, or a duration ago.")
@click.option("--service", default="", metavar="NAME", help="What was of this service.")
@click.option("--session", "session_id", default="", metavar="ID", help="This session.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes into the audit log.")
@click.pass_obj
def purge(options: Globals, before: int | None, service: str, session_id: str, dry_run: bool, reason: str) -> None:
    """Remove ended sessions with their events and results, for good.

    At least one of --before, --service and --session is needed; of several, all have to apply. The colony's files are
    then copied anew without them, so that nothing of them stays there; it answers nothing about events meanwhile.
    The audit log keeps who watched what, and that it was removed.

    \b
    coral data purge --before 24h --dry-run
    coral data purge --service checkout --reason 'request 1234 of the data protection officer'
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.data import show_purge
    from coral.wire._generated.colony.v1 import audit_pb2
    from coral.wire.convert import timestamp

    request = audit_pb2.PurgeDataRequest(
        before=None if before is None else timestamp(before),
        service_name=service,
        session_id=session_id,
        dry_run=dry_run,
        reason=reason,
    )
    asyncio.run(show_purge(options, request))
