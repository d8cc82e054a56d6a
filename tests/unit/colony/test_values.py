"""Who may not see captured values gets the events without them, and is told where there were any."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
import pytest
from support.policies import user

from coral.colony.values import LABEL, WITHHELD, OpenSight, rows_without_values, table_without_values
from coral.events.batch import SCHEMA, rows
from coral.model.principal import Kind, Principal
from coral.model.session import Session, Status

SESSION = Session(
    session_id="s",
    service_name="web",
    function_name="f",
    agent_id="",
    started_at_ns=1,
    expires_at_ns=2,
    status=Status.ACTIVE,
    requested_by="bob",
)
ARGUMENT = {"name": "card", "type": "char *", "value": "4929 1234 5678 9012"}
RETURNED = {"type": "int", "value": "7", "is_error": True, "error_message": "declined 4929"}


def event(sequence: int, **fields: Any) -> dict[str, Any]:
    """An event as a row."""
    names = ("collector_id", "agent_id", "service_name", "function_name")
    return {
        "timestamp_ns": sequence,
        **dict.fromkeys(names, "x"),
        "event_type": "return",
        "duration_ns": 5,
        "pid": 1,
        "tid": 1,
        "args": [],
        "return_value": None,
        "labels": {},
        "sequence": sequence,
        **fields,
    }


EVENTS = [
    event(1, args=[ARGUMENT], labels={"exit": "tail_call"}),
    event(2, return_value=RETURNED),
    event(3, labels={"exit": "tail_call"}),
]
BARE = [
    event(1, labels={"exit": "tail_call", LABEL: WITHHELD}),
    event(2, labels={LABEL: WITHHELD}),
    event(3, labels={"exit": "tail_call"}),
]


def table(events: list[dict[str, Any]]) -> pa.Table:
    """Events as a table."""
    return pa.Table.from_pylist([{**one, "labels": list(one["labels"].items())} for one in events], SCHEMA)


def test_rows_lose_arguments_and_return_values() -> None:
    """All else of an event stays; one that had none of them is as it was."""
    assert list(rows_without_values(EVENTS)) == BARE


def test_tables_lose_the_same() -> None:
    """A follower's batches say what a query's events say, in the same schema."""
    bare = table_without_values(table(EVENTS))
    assert list(rows(bare)) == BARE
    assert bare.schema == SCHEMA
    assert "4929" not in str(bare.to_pydict())


def test_a_table_without_values_is_left_alone() -> None:
    """The usual one costs nothing more."""
    plain = table([EVENTS[2]])
    assert table_without_values(plain) is plain
    assert table_without_values(SCHEMA.empty_table()).num_rows == 0


@pytest.mark.parametrize(
    ("principal", "sees"), [(Principal(name="root@host", kind=Kind.LOCAL), True), (user("ann", "admin"), False)]
)
def test_without_policies_only_local_callers_see_values(principal: Principal, sees: bool) -> None:
    """A colony that authenticates has policies; should it ever be built without, nobody sees values."""
    assert asyncio.run(OpenSight().sees_values(principal, SESSION)) is sees
