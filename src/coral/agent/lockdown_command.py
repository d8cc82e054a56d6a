"""``coral agent lockdown``: the kill switch of this host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command(short_help="Detach everything on this host, and refuse new probes.")
@click.option("--off", is_flag=True, help="Lift the lockdown.")
@click.option("--status", is_flag=True, help="Only say whether the host is locked down.")
@click.option("--reason", default="", metavar="TEXT", help="Why; users see it.")
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="The agent's, if it is not the usual one.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The agent's, likewise.")
@click.pass_obj
def lockdown(options: Any, off: bool, status: bool, reason: str, state_dir: Path | None, config: Path | None) -> None:
    """Detach everything on this host within a second, and have its agent refuse new probes until --off.

    For root, on the host itself; it needs no colony, and no agent that answers: one that does not is ended, and the kernel
    takes its probes away with it. It stays in force when the agent starts again.
    """
    import json
    from functools import partial

    from coral.agent.lockdown import LockdownFiles
    from coral.agent.lockdown_control import lift, lock, look
    from coral.config.settings import load_agent_settings
    from coral.model.errors import InvalidArgument
    from coral.model.text import check_name

    if off and (status or reason):
        raise InvalidArgument("--off goes with neither --status nor --reason.", hint="Give one of them.")
    check_name(reason, "--reason", required=False)
    files = LockdownFiles(load_agent_settings({"state_dir": state_dir}, config).state_dir)
    act = look if status else lift if off else partial(lock, reason=reason)
    report = act(files)
    if options.form == "table":
        click.echo(report.sentence)
    else:
        click.echo(json.dumps(report.document()))
