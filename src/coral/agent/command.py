"""``coral agent start``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Run the agent of this host.")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve gRPC; default 127.0.0.1:8080.")
@click.option("--colony", metavar="HOST:PORT", help="The colony to report to; default 127.0.0.1:8081.")
@click.option("--join", metavar="TOKEN", help="Join the colony with an invitation: the text, @FILE, or - for standard input.")
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where the agent keeps id and certificate.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Read this file instead of the usual ones.")
@click.option("--insecure", is_flag=True, help="No authentication; loopback only.")
@click.option("--ready-fd", type=int, hidden=True)
def start(
    listen: str | None,
    colony: str | None,
    join: str | None,
    state_dir: Path | None,
    config: Path | None,
    insecure: bool,
    ready_fd: int | None,
) -> None:
    """Run the agent of this host, as root: it attaches probes and reports what they see to the colony.

    It takes commands from the colony that it has joined. `coral agent invite` at the colony makes the invitation with which
    it joins, once; CORAL_AGENT__JOIN may hold it too, out of the list of processes.
    """
    import asyncio
    import os

    from coral.agent import privileges
    from coral.config.settings import load_agent_settings
    from coral.telemetry import logs
    from coral.telemetry.lifecycle import die_with_parent, keep_to_itself

    keep_to_itself()
    if ready_fd is not None:
        die_with_parent()
    logs.configure(verbosity=click.get_current_context().meta.get("coral.verbosity", 0))
    settings = load_agent_settings({"listen": listen, "colony": colony, "join": join, "state_dir": state_dir}, config)
    os.environ.pop("CORAL_AGENT__JOIN", None)  # what this starts has no business with it
    if insecure:
        click.echo("coral: no authentication: whoever reaches this loopback port can attach probes.", err=True)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads would keep what is dropped here
    from coral.elf.parser import Parser

    parser = Parser()
    parser.start()
    privileges.drop()
    from coral.agent.daemon import run  # it loads libraries that start threads

    asyncio.run(run(settings, insecure=insecure, ready_fd=ready_fd, parser=parser))
