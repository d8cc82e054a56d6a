"""``coral colony start``. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click


@click.command("start")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve gRPC; port 0 takes a free one. [127.0.0.1:8081]")
@click.option("--state-dir", metavar="DIR", type=click.Path(file_okay=False), help="Where the databases are kept.")
@click.option("--config", metavar="FILE", type=click.Path(dir_okay=False), help="Settings file to read instead of the usual.")
@click.option("--insecure", is_flag=True, help="Without authentication, on loopback only.")
@click.option("--ready-fd", type=int, hidden=True, help="Descriptor to write one JSON line to when ready.")
def start(listen: str | None, state_dir: str | None, config: str | None, insecure: bool, ready_fd: int | None) -> None:
    """Run the control plane: sessions, events, audit, and the agents' registry."""
    import asyncio
    from pathlib import Path

    from coral.config.settings import load_colony_settings
    from coral.telemetry import logs
    from coral.telemetry.lifecycle import die_with_parent, keep_to_itself

    keep_to_itself()
    if ready_fd is not None:
        die_with_parent()
    logs.configure(verbosity=click.get_current_context().meta.get("coral.verbosity", 0))
    flags = {"listen": listen, "state_dir": state_dir}
    settings = load_colony_settings(flags, Path(config) if config else None)

    if insecure:
        click.echo("coral: no authentication: whoever reaches this loopback port can attach probes.", err=True)

    async def serve() -> None:
        import os

        import structlog

        from coral.colony.daemon import Colony
        from coral.telemetry.lifecycle import announce_ready, stop_event

        log = structlog.get_logger("coral.colony")
        stop = stop_event()
        colony = Colony(settings)
        address = await colony.start()
        log.info("colony ready", listen=address, state_dir=str(settings.state_dir))
        facts = {"ready": True, "colony": address, "state_dir": str(settings.state_dir), "pid": os.getpid()}
        announce_ready(facts, ready_fd)
        await colony.run(stop)

    asyncio.run(serve())
