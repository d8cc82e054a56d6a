"""``coral colony init`` and ``coral colony start``. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from coral.config.settings import ColonySettings
    from coral.trust.colony_keys import ColonyKeys


@click.command("init")
@click.option("--state-dir", metavar="DIR", type=click.Path(file_okay=False), help="Where the colony keeps its state.")
@click.option("--name", "names", metavar="HOST", multiple=True, help="A name or address by which users reach it; repeatable.")
@click.option("--config", metavar="FILE", type=click.Path(dir_okay=False), help="Settings file to read instead of the usual.")
def init(state_dir: str | None, names: tuple[str, ...], config: str | None) -> None:
    """Make the keys of a new colony, and print its first admin's token.

    The token stands nowhere else. A second time nothing is changed.
    """
    import asyncio
    import sys
    from pathlib import Path

    from coral.colony.founding import FIRST_ADMIN, found
    from coral.config.settings import load_colony_settings
    from coral.telemetry import logs
    from coral.telemetry.lifecycle import keep_to_itself

    keep_to_itself()
    # A command, not a daemon: what its parts log is for whoever asks for more.
    logs.configure(verbosity=click.get_current_context().meta.get("coral.verbosity", 0) or logs.QUIET)
    settings = load_colony_settings({"state_dir": state_dir}, Path(config) if config else None)
    folder = settings.state_dir

    def hand_over(token: str) -> None:
        sys.stdout.write(token + "\n")
        sys.stdout.flush()

    asyncio.run(found(folder, names, server_lifetime_s=settings.server_certificate_s, hand_over=hand_over))
    click.echo(
        f"The colony's keys are in {folder}. Keep a copy of ca.key where nobody can read it.\n"
        f"On stdout is the token of {FIRST_ADMIN!r}, good for a year. Make one for each person "
        f"(`coral token create`), then revoke it.\n"
        f"Next: `coral colony start`, and `coral login --ca {folder}/ca.pem`.",
        err=True,
    )


@click.command("admin")
@click.option("--state-dir", metavar="DIR", type=click.Path(file_okay=False), help="Where the colony keeps its state.")
@click.option("--config", metavar="FILE", type=click.Path(dir_okay=False), help="Settings file to read instead of the usual.")
def admin(state_dir: str | None, config: str | None) -> None:
    """Make a new token for the first admin, when the last one was lost.

    The colony is stopped for that, and started again. The token before it does not count any more; this one stands nowhere
    but on stdout.
    """
    import asyncio
    import sys
    from pathlib import Path

    from coral.colony.founding import replace_admin
    from coral.config.settings import load_colony_settings
    from coral.telemetry import logs
    from coral.telemetry.lifecycle import keep_to_itself

    keep_to_itself()
    logs.configure(verbosity=click.get_current_context().meta.get("coral.verbosity", 0) or logs.QUIET)
    settings = load_colony_settings({"state_dir": state_dir}, Path(config) if config else None)

    def hand_over(token: str) -> None:
        sys.stdout.write(token + "\n")
        sys.stdout.flush()

    asyncio.run(replace_admin(settings.state_dir, hand_over=hand_over))


@click.command("start")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve gRPC; port 0 takes a free one. [127.0.0.1:8081]")
@click.option("--agent-listen", metavar="HOST:PORT", help="Where to serve agents, by mutual TLS. [port 8083 beside --listen]")
@click.option("--state-dir", metavar="DIR", type=click.Path(file_okay=False), help="Where the databases are kept.")
@click.option("--config", metavar="FILE", type=click.Path(dir_okay=False), help="Settings file to read instead of the usual.")
@click.option("--insecure", is_flag=True, help="Without authentication, on loopback only.")
@click.option("--ready-fd", type=int, hidden=True, help="Descriptor to write one JSON line to when ready.")
def start(
    listen: str | None,
    agent_listen: str | None,
    state_dir: str | None,
    config: str | None,
    insecure: bool,
    ready_fd: int | None,
) -> None:
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
    flags = {"listen": listen, "agent_listen": agent_listen, "state_dir": state_dir}
    settings = load_colony_settings(flags, Path(config) if config else None)
    keys = None if insecure else _keys(settings)

    if insecure:
        click.echo("coral: no authentication: whoever reaches this loopback port can attach probes.", err=True)

    async def serve() -> None:
        import os

        import structlog

        from coral.colony.daemon import Colony
        from coral.telemetry.lifecycle import announce_ready, stop_event
        from coral.telemetry.service_manager import ServiceManager

        log = structlog.get_logger("coral.colony")
        stop, manager = stop_event(), ServiceManager.of()
        colony = Colony(settings, keys=keys, manager=manager)
        address = await colony.start()
        log.info("colony ready", listen=address, agent_listen=colony.agent_address, state_dir=str(settings.state_dir))
        facts = {
            "ready": True,
            "colony": address,
            "agents": colony.agent_address,
            "state_dir": str(settings.state_dir),
            "pid": os.getpid(),
        }
        announce_ready(facts, ready_fd, manager)
        await colony.run(stop)

    asyncio.run(serve())


def _keys(settings: ColonySettings) -> ColonyKeys:
    """The keys in the state directory.

    Raises:
        FailedPrecondition: There are none, or they cannot be used.
    """
    from coral.model.errors import FailedPrecondition
    from coral.trust.colony_keys import ColonyKeys, is_initialised
    from coral.trust.secret_files import private_folder

    folder = settings.state_dir
    if not is_initialised(folder):
        raise FailedPrecondition(
            f"There is no colony in {folder}: it has no keys, so it cannot tell who calls.",
            hint="Make them with `coral colony init`; or, to try things out on this host alone, start it with --insecure.",
        )
    private_folder(folder)
    return ColonyKeys.load(folder)
