"""``coral config show``. pydantic is loaded when it runs, and by no other command of this package."""

from __future__ import annotations

from pathlib import Path

import click

from coral.cli.options import Globals


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Read this file instead of the usual ones.")
@click.pass_obj
def show(options: Globals, config: Path | None) -> None:
    """Show every setting of colony and agent on this host, and where its value comes from.

    A flag of `coral colony start` or `coral agent start` wins over all of them.
    """
    import json

    from coral.cli.listings import emit_items
    from coral.cli.tables import emit_table
    from coral.config.settings import show_settings

    found = show_settings(config)
    if options.form == "table":
        texts = (one.value if isinstance(one.value, str) else json.dumps(one.value) for one in found)
        rows = [(one.key, text, one.source) for one, text in zip(found, texts, strict=True)]
        emit_table(("KEY", "VALUE", "SOURCE"), rows, color=options.color)
    else:
        emit_items(options, [{"key": one.key, "value": one.value, "source": one.source} for one in found])
