"""Who did what: every operation is a row of ``audit_log``. What changes something is written before it happens: no audit, no
action.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from coral.colony.store.database import Database
from coral.model.errors import CoralError
from coral.model.principal import Principal
from coral.model.session import Session
from coral.model.text import printable

_MAX_TEXT = 1024
_NOTES_EVERY_S = 0.2
_COLUMNS = pa.schema(
    [
        ("sequence", pa.int64()),
        ("time", pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in (
            "principal", "role", "address", "action", "service_name", "function_name", "session_id", "agent_id", "reason",
            "decision", "outcome",
        )),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row. Empty where there is nothing to say.

    Attributes:
        sequence: Its number, rising.
        time_ns: Wall clock.
        caller: Who.
        action: What: the name of the RPC.
        service_name: On which service.
        function_name: On which function.
        session_id: Which session.
        agent_id: Which agent.
        reason: Why, as the caller says; of QueryDatabase the statement, of RegisterAgent the address.
        decision: allow, deny, or error.
        outcome: ``ok``, the name of a status, or ``started`` while it is not known.
    """

    sequence: int
    time_ns: int
    caller: Principal
    action: str
    service_name: str = ""
    function_name: str = ""
    session_id: str = ""
    agent_id: str = ""
    reason: str = ""
    decision: str = "allow"
    outcome: str = "started"

    def about(self, session: Session) -> Entry:
        """The row with the names of a session's service and function."""
        return replace(
            self,
            session_id=session.session_id,
            service_name=session.service_name,
            function_name=session.function_name,
        )


@dataclass(slots=True)
class Noted:
    """A row that is being noted; what it is about may be learned on the way.

    Attributes:
        entry: The row, as far as known.
    """

    entry: Entry

    def about(self, session: Session) -> None:
        """Names the service and function of a session."""
        self.entry = self.entry.about(session)


class Audit:
    """Writes the log."""

    def __init__(self, control: Database) -> None:
        self._control = control
        self._next = 1
        self._noted: list[Entry] = []

    async def load(self) -> None:
        """Finds where the numbering goes on."""
        found = await self._control.read(
            lambda cursor: cursor.execute("SELECT coalesce(max(sequence), 0) FROM audit_log").fetchone()
        )
        self._next = (found[0] if found else 0) + 1

    def entry(
        self,
        who: Principal,
        action: str,
        *,
        service_name: str = "",
        function_name: str = "",
        session_id: str = "",
        agent_id: str = "",
        reason: str = "",
    ) -> Entry:
        """A new row, not written yet. Texts are cut and made printable: what was refused for its names is logged too."""
        sequence, self._next = self._next, self._next + 1
        return Entry(
            sequence=sequence,
            time_ns=time.time_ns(),
            caller=who,
            action=action,
            service_name=_text(service_name),
            function_name=_text(function_name),
            session_id=_text(session_id),
            agent_id=_text(agent_id),
            reason=_text(reason),
        )

    async def before(self, entry: Entry) -> None:
        """Writes a row before what it tells of is done.

        Raises:
            Unavailable: It cannot be written, so it must not be done.
        """
        await self._control.write(lambda connection: put_entries(connection, [entry]))

    async def refused(self, entry: Entry, error: CoralError) -> None:
        """Writes a row of something that was not done."""
        done = replace(entry, decision="error", outcome=error.code)
        await self._control.write(lambda connection: put_entries(connection, [done]))

    async def denied(self, entry: Entry, error: CoralError) -> None:
        """Writes a row of something that its caller may not have done.

        Raises:
            Unavailable: It cannot be written.
        """
        done = replace(entry, decision="deny", outcome=error.code)
        await self._control.write(lambda connection: put_entries(connection, [done]))

    def outcome(self, entry: Entry, error: CoralError | None = None, *, agent_id: str = "", cancelled: bool = False) -> None:
        """Adds to a row that is written how it ended; ``cancelled``: its caller went away."""
        decision, outcome = ("error", error.code) if error else ("allow", "CANCELLED" if cancelled else "ok")
        self._control.post(
            lambda connection: connection.execute(
                "UPDATE audit_log SET decision = ?, outcome = ?, agent_id = CASE WHEN ? = '' THEN agent_id ELSE ? END "
                "WHERE sequence = ?",
                [decision, outcome, agent_id, agent_id, entry.sequence],
            ),
            what="audit outcome",
        )

    def note(self, entry: Entry, *, decision: str, outcome: str) -> None:
        """Notes what changed nothing and is over; written a moment later, with others."""
        if not self._noted:
            asyncio.get_running_loop().call_later(_NOTES_EVERY_S, self.flush)
        self._noted.append(replace(entry, decision=decision, outcome=outcome))

    def flush(self) -> None:
        """Queues all notes for writing."""
        noted, self._noted = self._noted, []
        if noted:
            self._control.post(lambda connection: put_entries(connection, noted), what="audit")

    @asynccontextmanager
    async def noting(self, entry: Entry) -> AsyncIterator[Noted]:
        """Notes how the block ended, for what changes nothing."""
        noted = Noted(entry)
        decision, outcome = "error", "INTERNAL"
        try:
            yield noted
            decision, outcome = "allow", "ok"
        except CoralError as error:
            outcome = error.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            decision, outcome = "allow", "CANCELLED"
            raise
        finally:
            self.note(noted.entry, decision=decision, outcome=outcome)


def put_entries(connection: duckdb.DuckDBPyConnection, entries: Sequence[Entry]) -> None:
    """Writes rows; a job for ``Database.write``."""
    rows = [
        {
            **{name: getattr(entry, name) for name in _COLUMNS.names if name not in ("time", "principal", "role", "address")},
            "time": entry.time_ns // 1000,
            "principal": entry.caller.name,
            "role": entry.caller.role,
            "address": entry.caller.address,
        }
        for entry in entries
    ]
    connection.register("new_entries", pa.Table.from_pylist(rows, schema=_COLUMNS))
    connection.execute("INSERT INTO audit_log SELECT * FROM new_entries")
    connection.unregister("new_entries")


def _text(value: str) -> str:
    return printable(value[:_MAX_TEXT])
