"""``coral function list`` and ``coral debug info``: what they take."""

from __future__ import annotations

import click

from coral.cli.options import Globals


@click.command("list")
@click.argument("service")
@click.argument("pattern", required=False, default="", metavar="[PATTERN]")
@click.option("--library", default="", metavar="NAME", help="Of this loaded library instead of the program: libc.so.6.")
@click.option("--libraries", is_flag=True, help="Of the program and of every library that it has loaded.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=1000, show_default=True, metavar="N", help="At most so many; 0 for all."
)
@click.option("--all", "everything", is_flag=True, help="The same as --limit 0.")
@click.option("--page-token", default="", metavar="TOKEN", help="Go on where a list with -o json ended.")
@click.option("--exact", is_flag=True, help="Decode every function that is listed, however long that takes.")
@click.pass_obj
def functions(
    options: Globals,
    service: str,
    pattern: str,
    library: str,
    libraries: bool,
    limit: int,
    everything: bool,
    page_token: str,
    exact: bool,
) -> None:
    """List the functions of a running service, and whether each can be probed.

    PATTERN is what the name contains, as the source or as the symbol table spells it; with * or ? in it also a glob
    over the whole name. Upper and lower case are two. LIBRARY!PATTERN is for a loaded library.

    \b
    coral function list checkout Payment
    coral function list checkout 'main.*'
    coral function list nginx 'libc.so.6!malloc'

    Whether a function can be probed is known exactly once it was decoded, which is done for about a second's worth of
    functions; the others say that they were not decoded. A narrower PATTERN or --exact decodes what is listed.
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    import asyncio

    from coral.cli.functions import Wanted, show_functions

    if library and libraries:
        raise click.UsageError("--library and --libraries exclude each other.")
    wanted = Wanted(
        service=service,
        pattern=pattern,
        library=library,
        all_libraries=libraries,
        limit=0 if everything else limit,
        page_token=page_token,
        exact=exact,
    )
    asyncio.run(show_functions(options, wanted))


@click.command()
@click.argument("service")
@click.option(
    "-f",
    "--function",
    required=True,
    metavar="FUNCTION",
    help="[LIBRARY!]NAME or FILE:NAME, as for coral debug attach.",
)
@click.pass_obj
def info(options: Globals, service: str, function: str) -> None:
    """Show what an attach would do, without attaching.

    Where the function is, every instruction that would carry a probe and why, what a call would then cost on each
    host, or why it cannot be probed and what to do.
    """
    import asyncio

    from coral.cli.explanation import show_explanation

    asyncio.run(show_explanation(options, service, function))
