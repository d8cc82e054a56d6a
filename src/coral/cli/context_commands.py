"""``coral context``: what its commands take, and do. Only click is imported here, so that help stays cheap."""

from __future__ import annotations

import click

from coral.cli.options import Globals


@click.command("list")
@click.pass_obj
def list_contexts(options: Globals) -> None:
    """List the colonies that you are signed in to; the one in use has a star."""
    from coral.cli.contexts import load_contexts
    from coral.cli.listings import emit_items
    from coral.cli.output import narrate
    from coral.cli.tables import emit_table

    contexts = load_contexts()
    found = list(contexts.by_name.values())
    if options.form != "table":
        emit_items(
            options,
            [
                {
                    "name": context.name,
                    "colony": context.colony,
                    "user": context.user,
                    "current": context.name == contexts.current,
                }
                for context in found
            ],
        )
    elif not found:
        narrate("No context. `coral login` makes one.")
    else:
        rows = [("*" if one.name == contexts.current else "", one.name, one.colony, one.user) for one in found]
        emit_table(("", "NAME", "COLONY", "USER"), rows, whole=("NAME", "COLONY"), color=options.color)


@click.command()
@click.argument("name")
def use(name: str) -> None:
    """Use the context NAME from now on."""
    from coral.cli.contexts import load_contexts, save_contexts
    from coral.cli.output import narrate

    contexts = load_contexts().using(name)
    save_contexts(contexts)
    narrate(f"Context {name}: {contexts.by_name[name].colony}.")
