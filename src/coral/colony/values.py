"""What callers may see of what they may ask for: captured values, and the items of a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from coral.events.batch import SCHEMA
from coral.model.principal import Kind, Principal
from coral.model.session import Session

LABEL = "values"
WITHHELD = "withheld: ReadValues is not permitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item of a list, as policies know it: a service, or a session of its with its function and who began it."""

    service_name: str
    function_name: str = ""
    owner: str = ""


class Sight(Protocol):
    """Knows who may see what."""

    async def sees_values(self, principal: Principal, session: Session) -> bool:
        """Whether somebody may see the values that a session captured."""
        ...

    async def sees_items(self, principal: Principal, action: str, items: Sequence[Item]) -> list[bool]:
        """Which items of an answer somebody may see; ``action`` is the name of the RPC, which is let through."""
        ...


class OpenSight:
    """Of a colony that authenticates nobody: its callers may do everything."""

    async def sees_values(self, principal: Principal, session: Session) -> bool:
        """Whether the caller is of that kind."""
        return principal.kind is Kind.LOCAL

    async def sees_items(self, principal: Principal, action: str, items: Sequence[Item]) -> list[bool]:
        """All, if the caller is of that kind."""
        return [principal.kind is Kind.LOCAL] * len(items)


def rows_without_values(events: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Events as ``events.batch.rows`` gives them, without arguments and return values; a label says where there were any."""
    for event in events:
        if event["args"] or event["return_value"] is not None:
            yield {**event, "args": [], "return_value": None, "labels": {**event["labels"], LABEL: WITHHELD}}
        else:
            yield dict(event)


def table_without_values(events: pa.Table) -> pa.Table:
    """The same for a table of ``SCHEMA``."""
    captured = pc.or_(
        pc.greater(pc.fill_null(pc.list_value_length(events["args"]), 0), 0), pc.is_valid(events["return_value"])
    )
    if not pc.any(captured).as_py():
        return events
    labels = [
        [*pairs, (LABEL, WITHHELD)] if had else pairs
        for pairs, had in zip((row or [] for row in events["labels"].to_pylist()), captured.to_pylist(), strict=True)
    ]
    replaced = {
        "args": pa.array([[]] * events.num_rows, SCHEMA.field("args").type),
        "return_value": pa.nulls(events.num_rows, SCHEMA.field("return_value").type),
        "labels": pa.array(labels, SCHEMA.field("labels").type),
    }
    for name, column in replaced.items():
        events = events.set_column(SCHEMA.names.index(name), SCHEMA.field(name), column)
    return events
