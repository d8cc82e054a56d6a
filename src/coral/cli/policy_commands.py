"""``coral policy``: check, test, explain. What they do is in ``policies`` and ``policy_files``, loaded when they run."""

from __future__ import annotations

from pathlib import Path

import click

from coral.cli.options import DURATION, Globals

_ROLES = ("viewer", "operator", "investigator", "admin")
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=_PATH)
@click.pass_obj
def check(options: Globals, files: tuple[Path, ...]) -> int:
    """Check policies: those in the files, or those of the colony.

    With files, or folders of *.cedar, nothing else is asked: their syntax, and whether what they speak of exists. Without,
    the colony says which policies are in force, and why newer ones are not. Exits with 1 if anything is wrong.

    \b
    coral policy check prod.cedar
    coral policy check
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    if files:
        from coral.cli.policy_files import check_files

        return check_files(options, files)
    import asyncio

    from coral.cli.policies import check_colony

    return asyncio.run(check_colony(options))


@click.command("test")
@click.argument("file", metavar="FILE", type=_PATH)
@click.option("--policy", "policies", multiple=True, type=_PATH, metavar="FILE", help="Policies to test; may be repeated.")
@click.pass_obj
def run_test(options: Globals, file: Path, policies: tuple[Path, ...]) -> int:
    """Try the cases in a YAML file, and say which come out otherwise.

    Asked are the default policies and those that --policy or the file names; without any, those of this host's colony
    (policy_dir). Exits with 1 if a case comes out otherwise than expected.

    \b
    coral policy test cases.yaml --policy prod.cedar
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    from coral.cli.policy_files import test_file

    return test_file(options, file, policies)


@click.command()
@click.argument("action")
@click.option("--principal", default="", metavar="NAME", help="Who; yourself if left out.")
@click.option("--role", "roles", multiple=True, type=click.Choice(_ROLES), help="As if they had it; may be repeated.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="As if they were in it; may be repeated.")
@click.option("--service", default="", metavar="SERVICE")
@click.option("--function", default="", metavar="FUNCTION")
@click.option("-d", "--duration", type=DURATION, metavar="DURATION", help="Of an attach. [default: 60s]")
@click.option("--values", is_flag=True, help="An attach that captures values.")
@click.option("--mode", type=click.Choice(["events", "count"]), default="events", help="Of an attach.")
@click.option("--owner", default="", metavar="NAME", help="Who began the session, or asked for the approval.")
@click.option("--agent", default="", metavar="ID", help="The one agent that an attach is for.")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@click.option("--address", default="", metavar="HOST:PORT", help="Where they connect from; from where you do if left out.")
@click.pass_obj
def explain(
    options: Globals,
    action: str,
    principal: str,
    roles: tuple[str, ...],
    groups: tuple[str, ...],
    service: str,
    function: str,
    duration: int | None,
    values: bool,
    mode: str,
    owner: str,
    agent: str,
    reason: str,
    address: str,
) -> None:
    """Say what the colony's policies would decide, and which of them. Nothing is done.

    \b
    coral policy explain AttachUprobe --service checkout -d 5m
    coral policy explain AttachUprobe --principal ann --role operator --service checkout --values
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.policies import show_explanation
    from coral.wire import convert
    from coral.wire._generated.colony.v1 import policy_pb2

    request = policy_pb2.ExplainPolicyRequest(
        principal=principal,
        roles=roles,
        groups=groups,
        action=action,
        service_name=service,
        function_name=function,
        duration=None if duration is None else convert.duration(duration),
        capture_values=values,
        mode=mode,
        owner=owner,
        agent_id=agent,
        reason=reason,
        address=address,
    )
    asyncio.run(show_explanation(options, request))
