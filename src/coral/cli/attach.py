"""Runs an attach: starts a session, shows it while it runs, survives a colony that restarts, and prints its result."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable

from coral.cli.documents import row_document, session_document
from coral.cli.entry import CALLS_LOST, OK, OTHER
from coral.cli.event_lines import event_line
from coral.cli.interrupt import Interrupt
from coral.cli.live import LivePicture, print_picture
from coral.cli.options import Globals
from coral.cli.output import Unwritable, emit, emit_document, emit_line, flush, narrate
from coral.cli.picture import summary
from coral.cli.snapshot import Rate, has_ended, has_lost_calls, is_settled, snapshot_of
from coral.cli.times import local_clock
from coral.client.colony import ColonyClient
from coral.events.batch import decode, rows
from coral.model.errors import CoralError, DeadlineExceeded, Internal, Unavailable
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import requested_duration_ns, timestamp_ns

OVERTIME_S = 10.0
"""For how long after its deadline a session is waited for: agents and colony may have to find each other again."""

SETTLE_S = 5.0
"""For how long the final ledger of an ended session is waited for."""

_LIVE_S = 0.5
_PLAIN_S = 1.0
_PROGRESS_S = 5.0
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0)


async def run_attach(options: Globals, request: debug_pb2.AttachUprobeRequest, *, follow: bool, wait: bool) -> int:
    """Attaches, shows, waits, prints.

    Args:
        options: The global options.
        request: What to attach to.
        follow: Write each call as it comes.
        wait: Until the session has ended; else until it is active.

    Returns:
        The exit code.

    Raises:
        CoralError: It was refused, or the colony could not be reached any more.
        BrokenPipeError: Nobody reads stdout any more; the session was ended.
        Unwritable: What was seen cannot be written; likewise.
    """
    async with ColonyClient(options.endpoint()) as colony:
        interrupt = Interrupt()
        response = await colony.attach(request)
        watch = Watch(options, colony, response.session_id, left_s=requested_duration_ns(request) / 1e9)
        if response.error:
            narrate(f"Warning: {response.error}")
        if not wait and not interrupt.asked.is_set():
            session, results = await watch.read()
            show_session(options, session, results)
            return OK
        show = watch.follow if follow else watch.live if watch.on_terminal else watch.progress
        try:
            interrupted = await _until_interrupted(show, interrupt)
        except (BrokenPipeError, Unwritable):
            await colony.detach(response.session_id)
            raise
        if interrupted:
            await watch.detach()
        session, results = await watch.settled()
        if not follow or options.form == "table":
            show_session(options, session, results)
        if not watch.on_terminal:
            narrate(f"Session {session.session_id} {session.status}{f': {session.reason}' if session.reason else '.'}")
        if interrupted:
            return interrupt.exit_code
        if session.status in ("failed", "lost"):
            return OTHER
        return CALLS_LOST if has_lost_calls(session.ledger) else OK


def show_session(options: Globals, session: debug_pb2.DebugSession, results: debug_pb2.GetDebugResultsResponse) -> None:
    """Prints a session in the form that was asked for."""
    if options.form == "table":
        print_picture(snapshot_of(session, results, now_ns=time.time_ns()), color=options.color)
    elif options.form == "json":
        emit_document(session_document(session, results))
    else:
        emit_line(session_document(session, results))


async def _until_interrupted(show: Callable[[], Awaitable[None]], interrupt: Interrupt) -> bool:
    """Runs ``show`` to its end or until a signal came; whether one did."""
    showing = asyncio.ensure_future(show())
    asked = asyncio.ensure_future(interrupt.asked.wait())
    try:
        await asyncio.wait((showing, asked), return_when=asyncio.FIRST_COMPLETED)
        if showing.done():
            await showing
    finally:
        for task in (showing, asked):
            task.cancel()
        await asyncio.gather(showing, asked, return_exceptions=True)
    return interrupt.asked.is_set()


class Watch:
    """One session, watched from its start.

    Attributes:
        on_terminal: Whether the live picture is what the user sees.
    """

    def __init__(self, options: Globals, colony: ColonyClient, session_id: str, *, left_s: float) -> None:
        self._options = options
        self._colony = colony
        self._session_id = session_id
        # The colony counts from its acceptance, which was earlier: this deadline is never too early. Wall clocks may differ.
        self._deadline_s = time.monotonic() + left_s
        self._failures = 0
        self.on_terminal = options.form == "table" and sys.stdout.isatty()

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._deadline_s - time.monotonic()

    async def read(self) -> tuple[debug_pb2.DebugSession, debug_pb2.GetDebugResultsResponse]:
        """The session and its results, now."""
        session = await self._colony.session(self._session_id, timeout_s=OVERTIME_S / 2)
        return session, await self._colony.results(self._session_id, form="histogram", timeout_s=OVERTIME_S / 2)

    async def live(self) -> None:
        """Draws the picture twice a second until the session has ended."""
        rate = Rate()
        snapshot = None
        with LivePicture(color=self._options.color) as screen:
            while True:
                try:
                    session, results = await self.read()
                except CoralError as error:
                    if snapshot:
                        screen.show(snapshot, trouble=error.message)
                    await self._bear(error)
                    continue
                self._failures = 0
                snapshot = snapshot_of(
                    session,
                    results,
                    now_ns=time.time_ns(),
                    left_s=self.left_s,
                    calls_per_second=rate.add(time.monotonic(), results.statistics.total_calls),
                )
                screen.show(snapshot)
                if has_ended(session):
                    return
                await self._pause(_LIVE_S)

    async def progress(self) -> None:
        """Says every few seconds on stderr how it goes, until the session has ended."""
        rate = Rate()
        attached = False
        said_s = time.monotonic()
        while True:
            try:
                session = await self._colony.session(self._session_id, timeout_s=OVERTIME_S / 2)
                if not attached:
                    narrate(_attached(session))
                    attached = True
                if has_ended(session):
                    return
                if time.monotonic() - said_s >= _PROGRESS_S:
                    said_s = time.monotonic()
                    session, results = await self.read()
                    per_second = rate.add(said_s, results.statistics.total_calls)
                    narrate(
                        summary(
                            snapshot_of(
                                session,
                                results,
                                now_ns=time.time_ns(),
                                left_s=self.left_s,
                                calls_per_second=per_second,
                            )
                        )
                    )
            except CoralError as error:
                await self._bear(error)
                continue
            self._failures = 0
            await self._pause(_PLAIN_S)

    async def follow(self) -> None:
        """Writes each event as it comes, until the session's final batch; after a broken link from where it was."""
        after: dict[str, int] = {}
        attached = False
        while True:
            try:
                if not attached:
                    narrate(_attached(await self._colony.session(self._session_id)))
                    attached = True
                timeout_s = max(1.0, self.left_s + OVERTIME_S)
                async for batch in self._colony.follow(self._session_id, after=after, timeout_s=timeout_s):
                    self._failures = 0
                    # A thread: whoever reads the pipe may be slow, and signals must be heard meanwhile.
                    await asyncio.to_thread(self._write, batch)
                    if batch.collector_id:
                        after[batch.collector_id] = max(after.get(batch.collector_id, 0), batch.last_sequence)
                    if batch.final:
                        return
                if has_ended(await self._colony.session(self._session_id)):
                    return
                raise Unavailable("The colony ended the stream before the session ended.")
            except CoralError as error:
                await self._bear(error)

    async def detach(self) -> None:
        """Ends the session early; a colony that cannot be reached is asked again for a while."""
        give_up_s = time.monotonic() + SETTLE_S
        while True:
            try:
                await self._colony.detach(self._session_id)
                return
            except (Unavailable, DeadlineExceeded) as error:
                if time.monotonic() >= give_up_s:
                    ends = f"It ends by itself in {math.ceil(max(0.0, self.left_s))} s."
                    raise type(error)(f"Session {self._session_id} was not ended: {error.message}", hint=ends) from None
                await asyncio.sleep(_BACKOFF_S[1])

    async def settled(self) -> tuple[debug_pb2.DebugSession, debug_pb2.GetDebugResultsResponse]:
        """The session once its final ledger has arrived, or as it is after a while."""
        give_up_s = time.monotonic() + SETTLE_S
        self._failures = 0
        while True:
            try:
                session, results = await self.read()
            except CoralError as error:
                await self._bear(error)
                continue
            if is_settled(session) or time.monotonic() >= give_up_s:
                return session, results
            await asyncio.sleep(_BACKOFF_S[0])

    def _write(self, batch: ebpf_pb2.UprobeEventBatch) -> None:
        try:
            events = rows(decode(batch.arrow_ipc))
            if self._options.form == "jsonl":
                lines = [json.dumps(row_document(row, self._session_id)) for row in events]
            else:
                lines = [event_line(row_document(row, self._session_id), row["timestamp_ns"]) for row in events]
        except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid and ArrowIOError
            raise Internal(f"The colony sent a batch that is not Arrow: {error}.") from None
        if lines:
            emit("\n".join(lines) + "\n")
            flush()

    async def _pause(self, longest_s: float) -> None:
        """Waits for the next look: ``longest_s``, or just past the deadline if that is sooner.

        Raises:
            DeadlineExceeded: The session has outlived its deadline by too much.
        """
        left_s = self.left_s
        if left_s < -OVERTIME_S:
            raise DeadlineExceeded(
                f"Session {self._session_id} is {-left_s:.0f} s past its deadline and has not ended.",
                hint="Its agent ends it by itself; the colony's log says what it waits for.",
            )
        soon_s = left_s + _BACKOFF_S[0] if left_s > 0 else 2 * _BACKOFF_S[1]
        await asyncio.sleep(max(_BACKOFF_S[0], min(longest_s, soon_s)))

    async def _bear(self, error: CoralError) -> None:
        """Waits before trying again after an error that may pass; raises any other, and that too when it is too late."""
        # UNKNOWN is what grpc says of a stream whose server went away in the middle.
        passing = isinstance(error, Unavailable | DeadlineExceeded) or error.code == "UNKNOWN"
        if not passing:
            raise error
        if self.left_s < -OVERTIME_S:
            raise type(error)(
                error.message,
                hint=f"The agents have ended the session; `coral debug session get {self._session_id}` shows it later.",
            )
        if self._failures == 0 and not self.on_terminal:
            narrate(f"{error.message} Trying again; the agents go on meanwhile.")
        await asyncio.sleep(_BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)])
        self._failures += 1


def _attached(session: debug_pb2.DebugSession) -> str:
    attached = [
        collector.agent_id
        for collector in session.collectors
        for instance in collector.instances
        if instance.status == "attached"
    ]
    instances = f"{len(attached):,} {'instance' if len(attached) == 1 else 'instances'}"
    hosts = f"{len(set(attached)):,} {'host' if len(set(attached)) == 1 else 'hosts'}"
    verb = "Waiting for" if session.status == "pending" else "Attached to"
    until = local_clock(timestamp_ns(session.expires_at), decimals=0).rstrip(".")
    return (
        f"{verb} {session.function_name} of {session.service_name}: {instances} on {hosts}, until {until}. "
        f"Session {session.session_id}."
    )
