"""``coral dev``: what it takes. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click

from coral.cli.options import Globals

_PORT = click.IntRange(0, 65535)


@click.command()
@click.option(
    "--state-dir", type=click.Path(file_okay=False), metavar="DIR", help="Where to keep state; else nowhere for long."
)
@click.option("--colony-port", type=_PORT, default=8081, show_default=True, metavar="PORT", help="0 takes a free one.")
@click.option("--agent-port", type=_PORT, default=8080, show_default=True, metavar="PORT", help="0 takes a free one.")
@click.option("--auth", is_flag=True, help="With TLS and credentials, as in production.")
@click.pass_obj
def dev(options: Globals, state_dir: str | None, colony_port: int, agent_port: int, auth: bool) -> int:
    """Run a colony and an agent on this host, to try things out.

    On loopback, and unless --auth is given without authentication. When both answer, one JSON line on stderr says where, and
    with --auth which files hold the colony's certificate and its admin's token. The agent attaches probes, so this needs
    root. Ctrl-C stops both.
    """
    import asyncio
    from pathlib import Path

    from coral.dev.supervisor import run_dev
    from coral.telemetry import logs
    from coral.telemetry.lifecycle import keep_to_itself

    keep_to_itself()
    logs.configure(verbosity=options.verbosity - 1 if options.verbosity else logs.QUIET)
    if colony_port == agent_port != 0:
        raise click.UsageError("--colony-port and --agent-port are the same.")
    directory = Path(state_dir).absolute() if state_dir else None
    return asyncio.run(
        run_dev(state_dir=directory, colony_port=colony_port, agent_port=agent_port, auth=auth, verbosity=options.verbosity)
    )
