"""``coral audit query|export|verify``: what they take."""

from __future__ import annotations

from pathlib import Path

import click

from coral.cli.options import MOMENT, Globals

_DECISIONS = ("allow", "deny", "error")


@click.command()
@click.option("--since", type=MOMENT, metavar="TIME", help="From this time on: RFC 3339, or a duration ago.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Before this time, likewise.")
@click.option("--principal", default="", metavar="NAME", help="Only by this user or agent.")
@click.option("--action", default="", metavar="NAME", help="Only this: AttachUprobe, CreateToken ...")
@click.option("--decision", type=click.Choice(_DECISIONS), help="Only what was decided so.")
@click.option("--service", default="", metavar="NAME", help="Only on this service.")
@click.option("--session", "session_id", default="", metavar="ID", help="Only of this session.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=100, show_default=True, metavar="N", help="At most so many; 0 for all."
)
@click.pass_obj
def query(
    options: Globals,
    since: int | None,
    until: int | None,
    principal: str,
    action: str,
    decision: str | None,
    service: str,
    session_id: str,
    limit: int,
) -> None:
    """Show who did what, newest first.

    An act is two records: one before it, with the outcome "started", and one after it that says how it ended.
    """
    import asyncio

    from coral.cli.audit import show_records
    from coral.wire._generated.colony.v1 import audit_pb2
    from coral.wire.convert import timestamp

    request = audit_pb2.QueryAuditRequest(
        since=None if since is None else timestamp(since),
        until=None if until is None else timestamp(until),
        principal=principal,
        action=action,
        decision=decision or "",
        service_name=service,
        session_id=session_id,
    )
    asyncio.run(show_records(options, request, limit=limit))


@click.command()
@click.option("-o", "--output", default="jsonl", metavar="jsonl|FILE", help="To stdout, or into a new file. [jsonl]")
@click.pass_obj
def export(options: Globals, output: str) -> None:
    """Write every record of the audit log as a line of JSON, oldest first.

    The lines are those that the colony keeps, to the byte: `coral audit verify FILE` checks them anywhere.
    """
    import asyncio

    from coral.cli.audit import write_export

    asyncio.run(write_export(options, None if output in ("jsonl", "-") else Path(output)))


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option(
    "--public-key", "keys", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="The colony's audit.pub."
)
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="A checkpoint that was kept elsewhere.")
@click.pass_obj
def verify(options: Globals, file: Path | None, keys: tuple[Path, ...], checkpoint: Path | None) -> int:
    """Prove that the audit log is what was written, or name the first record that is not.

    Without FILE the colony checks both of its copies. With FILE no colony is asked: the records are checked here, and
    the signatures in them with --public-key. Beside a colony's own audit.jsonl its audit.pub and its newest checkpoint are
    found by themselves.

    Exit status 0 if all is well, 1 if a record was changed, removed, moved, inserted, or cut off.
    """
    import asyncio

    if file is not None:
        from coral.cli.audit_file import show_checked

        return show_checked(options, file, key_paths=keys, checkpoint_path=checkpoint)
    if keys or checkpoint is not None:
        raise click.UsageError("--public-key and --checkpoint are for a FILE; the colony has its own.")
    from coral.cli.audit import show_verified

    return asyncio.run(show_verified(options))
