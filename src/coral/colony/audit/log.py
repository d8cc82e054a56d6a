"""Writes the audit log. What is not in the copy, synced, is not done; the table follows a moment later.

An act is two records: one before it, with the outcome ``started``, and one after it that says how it ended. Records are never
changed, since they are chained. One that was started and has no other is of a colony that ended on the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import structlog

from coral.colony.audit.copy import Copy
from coral.colony.audit.entry import Entry
from coral.colony.audit.folding import Folding
from coral.colony.audit.recovery import recover
from coral.colony.audit.table import AuditTable
from coral.colony.audit.writer import Writer, unwritable
from coral.colony.store.database import Database
from coral.colony.store.opening import SetAside
from coral.model.errors import CoralError, FailedPrecondition, Unavailable
from coral.model.principal import Principal
from coral.model.session import Session
from coral.telemetry.vitals import Trouble
from coral.trust.chain import Record, text
from coral.trust.checkpoint import PRINCIPAL, CheckpointKey

COPY_BYTES = 64 << 20
_ANSWER_S = 5.0
"""How long the disk may take before an act is refused for want of its record."""
_TICK_S = 0.2
_LOOK_S = 1.0
_CHECKPOINT_S = 60.0
_SET_ASIDE = "SetDatabaseAside"
_WAITING = 10_000
"""How many records may wait for the table."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Noted:
    """An act that is under way; what it is about may be learned on the way.

    Attributes:
        entry: Its entry, as far as known.
    """

    entry: Entry

    def about(self, session: Session) -> None:
        """Names the service and function of a session."""
        self.entry = self.entry.about(session)


class Audit:
    """The log of one colony."""

    def __init__(self, control: Database, *, folder: Path | None = None, copy_bytes: int = COPY_BYTES) -> None:
        """Nothing is opened yet.

        Args:
            control: The file with the table.
            folder: Where the copy and the key are kept; None for a log in memory, which has neither.
            copy_bytes: How large a file of the copy may become.
        """
        self.database = control
        self.copy = None if folder is None else Copy(folder, max_bytes=copy_bytes)
        self.table = AuditTable(control)
        self.on_failure: Callable[[str], None] | None = None
        self._folder = folder
        self._folding = Folding()
        self._table_failure = ""
        self._told = False
        self._failing = ""
        self._checkpointed = time.monotonic()
        self._writer: Writer | None = None
        self._key: CheckpointKey | None = None

    @property
    def writer(self) -> Writer:
        """The thread that writes.

        Raises:
            FailedPrecondition: The log is not open.
        """
        if self._writer is None:
            raise FailedPrecondition("The audit log is not open.")
        return self._writer

    @property
    def key(self) -> CheckpointKey:
        """What checkpoints are signed with.

        Raises:
            FailedPrecondition: The log is not open.
        """
        if self._key is None:
            raise FailedPrecondition("The audit log is not open.")
        return self._key

    async def open(self) -> None:
        """Finds where the log stands, and goes on from there.

        Raises:
            FailedPrecondition: The copy or the key cannot be used.
            Unavailable: The table cannot be written.
        """
        key = (
            CheckpointKey.ephemeral()
            if self._folder is None
            else await asyncio.to_thread(CheckpointKey.of_folder, self._folder)
        )
        try:
            if self.copy is not None:
                await asyncio.to_thread(self.copy.open)
            found = await recover(self.database, self.copy, key)
        except OSError as error:
            raise FailedPrecondition(
                f"The audit log in {self._folder} cannot be used: {error.strerror or error}.",
                hint="Look at the files there, or give another --state-dir.",
            ) from None
        self.table.confirm(found.committed)
        self._key, self._writer = key, Writer(self.copy, self.table, key)
        self._writer.start(found.head, begins=found.begins)
        for aside in self.database.set_aside:
            await self.set_aside(aside)

    async def close(self) -> None:
        """Writes what is left, with a checkpoint, and closes the copy; the database is the caller's."""
        if self._writer is None:
            return
        for entry in self._folding.due(float("inf")):
            self._append(entry)
        try:
            await self._checkpoint()
        except Unavailable as error:
            _log.error("the audit log ends without a checkpoint", error=str(error))
        await asyncio.to_thread(self._writer.stop)
        self._writer = None
        if self.copy is not None:
            self.copy.close()

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
        """An entry, not written yet. Texts are cut and made printable: what was refused for its names is logged too."""
        return Entry(
            principal=text(who.name),
            role=text(who.role),
            address=text(who.address),
            action=text(action),
            service_name=text(service_name),
            function_name=text(function_name),
            session_id=text(session_id),
            agent_id=text(agent_id),
            reason=text(reason),
        )

    async def before(self, entry: Entry) -> None:
        """Writes and syncs an entry before what it tells of is done.

        Raises:
            Unavailable: It cannot be written, so it must not be done.
        """
        await self._require_table()
        await self._answer(self.writer.write(entry, sync=True))

    async def refused(self, entry: Entry, error: CoralError) -> None:
        """Writes that something was not done, whose caller was allowed to ask for it.

        Raises:
            Unavailable: It cannot be written.
        """
        await self._answer(self.writer.write(entry.ended(error), sync=True))

    async def denied(self, entry: Entry, error: CoralError) -> None:
        """Writes that a caller was not let in, for want of a credential, a permission or a limit.

        Many of the same are folded into one record with their number. It never fails: what is refused stays refused.
        """
        told = self._folding.take(entry.denied(error), time.monotonic())
        if told is None:
            return
        try:
            await self._answer(self.writer.write(told, sync=True))
        except Unavailable as failure:
            _log.error("a refusal is not in the audit log", action=told.action, address=told.address, error=str(failure))

    def outcome(self, entry: Entry, error: CoralError | None = None, *, agent_id: str = "", cancelled: bool = False) -> None:
        """Adds how an act ended that was written before; ``cancelled``: its caller went away."""
        if agent_id:
            entry = replace(entry, agent_id=text(agent_id))
        self._append(entry.ended(error, cancelled=cancelled))

    @asynccontextmanager
    async def noting(self, entry: Entry) -> AsyncIterator[Noted]:
        """Writes an entry before the block, and how the block ended after it.

        Raises:
            Unavailable: It cannot be written; the block does not run.
        """
        await self.before(entry)
        noted = Noted(entry)
        try:
            yield noted
        except CoralError as error:
            self.outcome(noted.entry, error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.outcome(noted.entry, cancelled=True)
            raise
        except Exception:
            self._append(replace(noted.entry, decision="error", outcome="INTERNAL"))
            raise
        self.outcome(noted.entry)

    async def set_aside(self, aside: SetAside) -> None:
        """Writes and syncs that the colony has begun a database file anew.

        Raises:
            Unavailable: It cannot be written.
        """
        reason = text(f"{aside.file} is kept as {aside.kept_as} and was begun anew: {aside.reason}")
        entry = Entry(principal=PRINCIPAL, role="", address="", action=_SET_ASIDE, reason=reason, outcome="ok")
        await self._answer(self.writer.write(entry, sync=True))

    async def flush(self) -> None:
        """Puts what is written into the table.

        Raises:
            Unavailable: The database cannot be written now.
        """
        try:
            await self.table.flush()
        except (Unavailable, duckdb.Error) as error:
            reason = error.message.rstrip(".") if isinstance(error, Unavailable) else str(error).partition("\n")[0]
            if not self._table_failure:
                _log.error("the audit table cannot be written", waiting=self.table.waiting, error=reason)
            self._table_failure = reason
            raise unwritable(self._table_failure) from None
        self._table_failure = ""

    async def sign(self) -> None:
        """Adds a checkpoint, unless the last record is one.

        Raises:
            Unavailable: It cannot be written.
        """
        await self._checkpoint()

    async def keep_from(self, first: int) -> None:
        """Signs that records before ``first`` are kept no longer.

        Raises:
            Unavailable: It cannot be written; they must be kept.
        """
        await asyncio.wrap_future(self.writer.between(lambda: self.writer.let_go(first)))
        await self._checkpoint(always=True)

    async def run(self) -> None:
        """Does what is due by the clock, until cancelled: rows into the table, checkpoints, folded refusals."""
        looked = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            for entry in self._folding.due(time.monotonic()):
                self._append(entry)
            try:
                await self.flush()
                if self.writer.since_checkpoint and time.monotonic() - self._checkpointed >= _CHECKPOINT_S:
                    await self._checkpoint()
                else:
                    await self._keep_checkpoint()
            except Unavailable:
                pass  # logged where it happened; the next round tries again
            if time.monotonic() - looked >= _LOOK_S:
                looked = time.monotonic()
                self._failing = await self._failure()
                self._tell(self._failing)

    def trouble(self) -> Trouble | None:
        """Why nothing can be written now, as of the last look; None when it can."""
        if self._writer is None:
            return Trouble(reason="the log is not open")
        return self._writer.trouble or (Trouble(reason=self._failing) if self._failing else None)

    async def _checkpoint(self, *, always: bool = False) -> None:
        """Signs what the table has, and keeps that apart."""
        await self.flush()
        if always or self.writer.since_checkpoint:
            self._checkpointed = time.monotonic()
            await self._answer(self.writer.checkpoint())
            await self.flush()
        await self._keep_checkpoint()

    async def _keep_checkpoint(self) -> None:
        if self.writer.unkept:
            await asyncio.wrap_future(self.writer.between(self.writer.keep_checkpoint))

    async def _failure(self) -> str:
        """Why nothing can be written now; empty if it can."""
        if self.copy is not None:
            try:
                await asyncio.wrap_future(self.writer.between(self.copy.check))
            except OSError as error:
                return error.strerror or str(error)
        return self.writer.failure or self._table_failure

    def _tell(self, failure: str) -> None:
        """Says once for each time that the log cannot be written."""
        if not failure:
            self._told = False
        elif not self._told:
            self._told = True
            if self.on_failure is not None:
                self.on_failure(failure)

    async def _require_table(self) -> None:
        """Looks whether the table still takes what the copy takes.

        Raises:
            Unavailable: It does not.
        """
        if self._table_failure or self.table.waiting > _WAITING:
            await self.flush()

    async def _answer(self, writing: Future[Record]) -> Record:
        try:
            async with asyncio.timeout(_ANSWER_S):
                # Shielded: what is queued is written, whether its caller waits for it or not.
                return await asyncio.shield(asyncio.wrap_future(writing))
        except TimeoutError:
            raise unwritable(f"the disk did not answer within {_ANSWER_S:g} s") from None

    def _append(self, entry: Entry) -> None:
        """Queues a record that nobody waits for; the writer logs a failure."""
        self.writer.write(entry, sync=False)
