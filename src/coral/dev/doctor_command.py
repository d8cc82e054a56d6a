"""``coral doctor``: what it takes. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click

from coral.cli.options import Globals


@click.command()
@click.pass_obj
def doctor(options: Globals) -> int:
    """Check whether this host can run Coral, and say what to do where it cannot.

    It attaches real probes, to a process of its own. Exit 1 if anything fails; a warning is no failure.
    """
    import asyncio

    from coral.cli.output import emit_document, emit_line
    from coral.cli.tables import emit_table
    from coral.dev.checks import Status
    from coral.dev.doctor import examine
    from coral.telemetry import logs

    logs.configure(verbosity=options.verbosity - 1 if options.verbosity else logs.QUIET)
    checks = asyncio.run(examine(options.endpoint()))
    documents = [check.document() for check in checks]
    if options.form == "json":
        emit_document({"checks": documents})
    elif options.form == "jsonl":
        for document in documents:
            emit_line(document)
    else:
        rows = [(check.name, check.status.value, " ".join(filter(None, (check.message, check.hint)))) for check in checks]
        emit_table(("CHECK", "STATUS", "MESSAGE"), rows, whole=("CHECK", "STATUS"), color=options.color)
    return 1 if any(check.status is Status.FAIL for check in checks) else 0
