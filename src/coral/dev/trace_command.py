"""``coral trace``: what it takes. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click

from coral.cli.options import DURATION, Globals

_DEFAULT_NS = 10_000_000_000


@click.command()
@click.argument("pid", type=click.IntRange(1))
@click.argument("function")
@click.option(
    "-d", "--duration", type=DURATION, default=None, metavar="DURATION", help="For how long, 1s to 10m. [default: 10s]"
)
@click.option("--follow", is_flag=True, help="Write each call as it comes; with -o jsonl as an event a line.")
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
@click.pass_obj
def trace(
    options: Globals,
    pid: int,
    function: str,
    duration: int | None,
    follow: bool,
    max_events: int,
    sample: int,
    min_duration: int | None,
    max_duration: int | None,
    mode: str,
) -> int:
    """Watch a function of one process, without any daemon.

    Colony and agent live inside this command, on loopback and without authentication, and keep nothing on disk. It needs
    root, shows the calls of FUNCTION in PID and in what that forks until the time is up, and leaves nothing behind, however
    it ends.

    \b
    coral trace 4711 price_order
    coral trace 4711 main.ProcessPayment -d 30s --min-duration 10ms --follow -o jsonl
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.dev.trace import run_trace
    from coral.telemetry import logs
    from coral.wire import convert
    from coral.wire._generated.colony.v1 import debug_pb2
    from coral.wire._generated.mesh.v1 import ebpf_pb2

    if follow and options.form == "json":
        raise click.UsageError("--follow writes a line per call: use it with -o jsonl, or without -o.")
    logs.configure(verbosity=options.verbosity - 1 if options.verbosity else logs.QUIET)
    request = debug_pb2.AttachUprobeRequest(
        function_name=function,
        duration=convert.duration(duration or _DEFAULT_NS),
        config=ebpf_pb2.UprobeConfig(sample_rate=sample, max_events=max_events, mode=mode),
        filter=ebpf_pb2.UprobeFilter(
            min_duration=convert.duration(min_duration) if min_duration else None,
            max_duration=convert.duration(max_duration) if max_duration else None,
        ),
        reason="coral trace",
    )
    return asyncio.run(run_trace(options, pid, request, follow=follow))
