"""``coral debug attach``: what it takes. What it does is in ``attach``, which is loaded when it runs."""

from __future__ import annotations

import click

from coral.cli.options import DURATION, Globals


@click.command()
@click.argument("service")
@click.option(
    "-f",
    "--function",
    required=True,
    metavar="FUNCTION",
    help="[LIBRARY!]NAME or FILE:NAME. Exact, else the end of a longer name (after . :: or /).",
)
@click.option("-d", "--duration", type=DURATION, metavar="DURATION", help="For how long, 1s to 10m. [default: 60s]")
@click.option("--follow", is_flag=True, help="Write each call as it comes; with -o jsonl as an event a line.")
@click.option("--no-wait", is_flag=True, help="Return as soon as the session is active.")
@click.option("--max-events", type=click.IntRange(0, 2**32 - 1), default=0, metavar="N", help="End after so many events.")
@click.option("--sample", type=click.IntRange(0, 2**32 - 1), default=0, metavar="N", help="Report every Nth call.")
@click.option("--min-duration", type=DURATION, metavar="DURATION", help="Report calls that take at least so long.")
@click.option("--max-duration", type=DURATION, metavar="DURATION", help="Report calls that take at most so long.")
@click.option(
    "--mode",
    type=click.Choice(["events", "count"]),
    default="events",
    show_default=True,
    help="Report calls with their durations, or only count them.",
)
@click.option("--accept-cost", is_flag=True, help="Attach although the cost would be high.")
@click.option("--agent", default="", metavar="ID", help="Only on this agent's host; never needed.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log.")
@click.pass_obj
def attach(
    options: Globals,
    service: str,
    function: str,
    duration: int | None,
    follow: bool,
    no_wait: bool,
    max_events: int,
    sample: int,
    min_duration: int | None,
    max_duration: int | None,
    mode: str,
    accept_cost: bool,
    agent: str,
    reason: str,
) -> int:
    """Watch a function of a running service.

    Attaches to FUNCTION in every instance of SERVICE, on every host, shows its calls until the time is up, and leaves
    nothing behind. Ctrl-C ends it early, with the result so far.

    \b
    coral debug attach checkout -f main.ProcessPayment
    coral debug attach nginx -f ngx_http_process_request -d 10s -o json
    coral debug attach pricing -f price_order --min-duration 10ms --follow -o jsonl
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.attach import run_attach
    from coral.wire import convert
    from coral.wire._generated.colony.v1 import debug_pb2
    from coral.wire._generated.mesh.v1 import ebpf_pb2

    if follow and no_wait:
        raise click.UsageError("--follow and --no-wait exclude each other.")
    if follow and options.form == "json":
        raise click.UsageError("--follow writes a line per call: use it with -o jsonl, or without -o.")
    request = debug_pb2.AttachUprobeRequest(
        service_name=service,
        function_name=function,
        duration=None if duration is None else convert.duration(duration),
        config=ebpf_pb2.UprobeConfig(sample_rate=sample, max_events=max_events, mode=mode),
        filter=ebpf_pb2.UprobeFilter(
            min_duration=convert.duration(min_duration) if min_duration else None,
            max_duration=convert.duration(max_duration) if max_duration else None,
        ),
        agent_id=agent,
        accept_cost=accept_cost,
        reason=reason,
    )
    return asyncio.run(run_attach(options, request, follow=follow, wait=not no_wait))
