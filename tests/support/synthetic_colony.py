"""A small colony in this process: a real gRPC server whose sessions are made up, for tests of the client and the CLI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from coral.events.batch import Origin, encode, rows, to_batch
from coral.events.histogram import Histogram
from coral.events.record import EVENT
from coral.model.errors import CoralError, InvalidArgument, NotFound
from coral.model.ledger import Ledger, UnknownInterval
from coral.wire import convert
from coral.wire._generated.colony.v1 import (
    debug_pb2,
    debug_pb2_grpc,
    inspect_pb2,
    inspect_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.server import Server

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS


def events_of(durations_ns: list[int], *, first_sequence: int = 1) -> Any:
    """Events a millisecond apart from ``START_NS`` on, of pid 4411 and tid 4415."""
    events = np.zeros(len(durations_ns), EVENT)
    events["sequence"] = np.arange(first_sequence, first_sequence + len(durations_ns))
    events["timestamp_ns"] = START_NS + 1_000_000 * events["sequence"].astype("i8")
    events["duration_ns"] = durations_ns
    events["pid"] = 4411
    events["tid"] = 4415
    return events


@dataclass(kw_only=True)
class SyntheticSession:
    """A session whose state a test sets. Its calls all returned and were all stored, unless ``lost`` says otherwise."""

    session_id: str
    service: str
    function: str
    expires_at_ns: int
    started_at_ns: int = START_NS
    status: str = "active"
    reason_code: str = ""
    reason: str = ""
    ended_at_ns: int = 0
    durations_ns: list[int] = field(default_factory=list)
    ring_lost: int = 0
    unknown: tuple[UnknownInterval, ...] = ()
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, status: str, reason_code: str, reason: str = "") -> None:
        """Ends it, if it has not ended."""
        if self.status in ("pending", "active"):
            self.status, self.reason_code, self.reason = status, reason_code, reason
            self.ended_at_ns = time.time_ns()
        self.changed.set()

    def look(self) -> None:
        """Ends it when its deadline has passed."""
        if time.time_ns() >= self.expires_at_ns:
            self.end("expired", "deadline")

    @property
    def ledger(self) -> Ledger:
        """Every event stored, ``ring_lost`` calls lost."""
        count = len(self.durations_ns)
        return Ledger(
            entered=count + self.ring_lost,
            returned=count + self.ring_lost,
            emitted=count,
            ring_lost=self.ring_lost,
            stored=count,
            unknown_intervals=self.unknown,
            final=self.status not in ("pending", "active"),
        )

    def table(self, after: int = 0) -> pa.Table:
        """Its events beyond a sequence, as the colony would send them."""
        origin = Origin(
            collector_id="C1", agent_id="agent-1", service_name=self.service, function_name=self.function, sites=()
        )
        batch = to_batch(events_of(self.durations_ns[after:], first_sequence=after + 1), origin)
        return pa.Table.from_batches([batch])

    def message(self) -> debug_pb2.DebugSession:
        """As ListDebugSessions gives it."""
        self.look()
        running = self.status == "active"
        instance = ebpf_pb2.Instance(
            pid=4411,
            start_time_ns=123_450_000_000,
            executable="/opt/shop/checkout",
            build_id="abcd",
            image_id="build-id:abcd",
            function_name=self.function,
            status="attached" if running else "detached",
            method="ret_sites",
            sites=[ebpf_pb2.Site(offset=4096, kind="entry"), ebpf_pb2.Site(offset=4160, kind="return")],
        )
        ledger = convert.ledger_to(self.ledger)
        return debug_pb2.DebugSession(
            session_id=self.session_id,
            service_name=self.service,
            function_name=self.function,
            agent_id="agent-1",
            started_at=convert.timestamp(self.started_at_ns),
            expires_at=convert.timestamp(self.expires_at_ns),
            status=self.status,
            requested_by="ann@desk",
            event_count=len(self.durations_ns),
            ledger=ledger,
            collectors=[
                debug_pb2.Collector(
                    collector_id="C1", agent_id="agent-1", status=self.status, ledger=ledger, instances=[instance]
                )
            ],
            reason=self.reason,
            reason_code=self.reason_code,
            ended_at=convert.timestamp(self.ended_at_ns) if self.ended_at_ns else None,
        )


class SyntheticColony(
    debug_pb2_grpc.DebugServiceServicer, registry_pb2_grpc.RegistryServiceServicer, inspect_pb2_grpc.InspectServiceServicer
):
    """Knows one service, ``checkout``, on ``agent-1``. Use it as an async context manager; ``address`` is where it is.

    Attributes:
        sessions: By id; a test may add and change them.
        template: What an attached session starts with.
        requests: Every request, with the caller that it named.
        refuse: Raised by AttachUprobe instead of attaching.
        table: What a database query answers.
        address: HOST:PORT.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, SyntheticSession] = {}
        self.durations_ns: list[int] = []
        self.ring_lost = 0
        self.end_at_once: tuple[str, str, str] | None = None
        self.warning = ""
        self.requests: list[tuple[str, Any]] = []
        self.attached = asyncio.Event()
        self.refuse: CoralError | None = None
        self.table = pa.table({})
        self.address = ""
        self._server: Server | None = None

    async def __aenter__(self) -> SyntheticColony:
        await self.start("127.0.0.1:0")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, listen: str) -> None:
        """Serves; a second time at the address of the first after ``stop``."""
        server = self._server = Server()
        debug_pb2_grpc.add_DebugServiceServicer_to_server(self, server.grpc)
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self, server.grpc)
        inspect_pb2_grpc.add_InspectServiceServicer_to_server(self, server.grpc)
        names = ["coral.colony.v1.DebugService", "coral.colony.v1.RegistryService", "coral.colony.v1.InspectService"]
        self.address = await server.start(listen, services=names, flag="--listen")

    async def stop(self) -> None:
        """Goes away, as a colony that is killed."""
        if self._server:
            await self._server.stop(0)

    def session(self, **values: Any) -> SyntheticSession:
        """Adds a session."""
        made = SyntheticSession(**values)
        self.sessions[made.session_id] = made
        return made

    def _note(self, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.requests.append((str(metadata.get("coral-actor", "")), request))

    def _find(self, session_id: str) -> SyntheticSession:
        if session_id not in self.sessions:
            raise NotFound(f"There is no session {session_id!r}.", hint="List them.")
        return self.sessions[session_id]

    async def AttachUprobe(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if self.refuse:
            raise self.refuse
        if request.service_name != "checkout":
            raise NotFound(f"There is no service {request.service_name!r}.", hint="Did you mean checkout?")
        now = time.time_ns()
        made = self.session(
            session_id=f"S{len(self.sessions) + 1}",
            service=request.service_name,
            function=request.function_name,
            started_at_ns=now,
            expires_at_ns=now + convert.requested_duration_ns(request),
            durations_ns=list(self.durations_ns),
            ring_lost=self.ring_lost,
        )
        if self.end_at_once:
            made.end(*self.end_at_once)
        self.attached.set()
        return debug_pb2.AttachUprobeResponse(
            session_id=made.session_id, expires_at=convert.timestamp(made.expires_at_ns), success=True, error=self.warning
        )

    async def DetachUprobe(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self._find(request.session_id).end("detached", "user")
        return debug_pb2.DetachUprobeResponse(success=True)

    async def ListDebugSessions(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if request.session_id:
            return debug_pb2.ListDebugSessionsResponse(sessions=[self._find(request.session_id).message()])
        chosen = [
            message
            for message in (session.message() for session in self.sessions.values())
            if request.service_name in ("", message.service_name) and request.status in ("", message.status)
        ]
        start = int(request.page_token or 0)
        rest = str(start + 2) if start + 2 < len(chosen) else ""  # two a page, so that tests meet several
        return debug_pb2.ListDebugSessionsResponse(sessions=chosen[start : start + 2], next_page_token=rest)

    async def GetDebugResults(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        session = self._find(request.session_id)
        histogram = Histogram()
        histogram.add(np.array(session.durations_ns, "u8"))
        slowest = sorted(rows(session.table()), key=lambda row: -row["duration_ns"])[:10]
        filled = histogram.filled() if request.format == "histogram" else []
        return debug_pb2.GetDebugResultsResponse(
            session_id=session.session_id,
            function=session.function,
            statistics=debug_pb2.DebugStatistics(
                total_calls=len(session.durations_ns) + session.ring_lost,
                duration_p50=convert.duration(histogram.percentile(50)),
                duration_p95=convert.duration(histogram.percentile(95)),
                duration_p99=convert.duration(histogram.percentile(99)),
                duration_max=convert.duration(histogram.max_ns),
                duration_min=convert.duration(histogram.min_ns),
                duration_mean=convert.duration(round(histogram.mean_ns)),
                duration_sum=convert.duration(histogram.total_ns),
                calls_per_second=12.5,
            ),
            slow_outliers=[
                debug_pb2.SlowOutlier(
                    duration=convert.duration(row["duration_ns"]),
                    timestamp=convert.timestamp(row["timestamp_ns"]),
                    event=convert.uprobe_event(row),
                )
                for row in slowest
            ],
            ledger=convert.ledger_to(session.ledger),
            histogram=debug_pb2.Histogram(
                lower_ns=[low for low, _, _ in filled],
                upper_ns=[high for _, high, _ in filled],
                count=[count for _, _, count in filled],
            ),
        )

    async def QueryUprobeEvents(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if request.max_events < 0 or request.max_events > 10_000:
            raise InvalidArgument("max_events is out of range.", hint="At most 10,000.")
        session = self._find(request.session_id)
        start_ns = convert.timestamp_ns(request.start_time) if request.HasField("start_time") else 0
        end_ns = convert.timestamp_ns(request.end_time) if request.HasField("end_time") else 1 << 62
        chosen = [row for row in rows(session.table()) if start_ns <= row["timestamp_ns"] < end_ns]
        start = int(request.page_token or 0)
        end = start + (request.max_events or 1000)
        more = end < len(chosen)
        return debug_pb2.QueryUprobeEventsResponse(
            events=[convert.uprobe_event(row) for row in chosen[start:end]],
            has_more=more,
            next_page_token=str(end) if more else "",
            ledger=convert.ledger_to(session.ledger),
        )

    async def FollowUprobeEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._note(request, context)
        session = self._find(request.session_id)
        sent = request.after.get("C1", 0)
        while True:
            session.changed.clear()
            session.look()
            final = session.status not in ("pending", "active")
            if final or len(session.durations_ns) > sent:
                table = session.table(sent)
                first = sent + 1 if table.num_rows else 0
                sent += table.num_rows
                yield ebpf_pb2.UprobeEventBatch(
                    arrow_ipc=encode(table) if table.num_rows else b"",
                    first_sequence=first,
                    last_sequence=sent,
                    collector_id="C1",
                    final=final,
                    status=session.status,
                    reason_code=session.reason_code,
                    ledger=convert.ledger_to(session.ledger),
                )
            if final:
                return
            left_s = (session.expires_at_ns - time.time_ns()) / SECOND_NS
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await session.changed.wait()
            except TimeoutError:
                continue

    async def UpdateProbeFilter(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return debug_pb2.UpdateProbeFilterResponse(success=True)

    async def RegisterAgent(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return registry_pb2.RegisterAgentResponse(epoch=7, heartbeat_ms=250)

    async def Heartbeat(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return registry_pb2.HeartbeatResponse(register_again=request.epoch != 7)

    async def ListAgents(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        agent = registry_pb2.Agent(
            agent_id="agent-1",
            address="127.0.0.1:8080",
            status="online",
            version="0.1.0",
            last_seen_at=convert.timestamp(START_NS + 500_000_000),
            kernel="6.18.44",
            methods=["uprobe_multi"],
            hostname="desk",
        )
        return registry_pb2.ListAgentsResponse(agents=[agent])

    async def ListServices(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        everything = [
            registry_pb2.ServiceInfo(name="checkout", agent_id="agent-1", instances=2, rule="argv0"),
            registry_pb2.ServiceInfo(
                name="checkout",
                agent_id="agent-2",
                instances=1,
                rule="argv0",
                sdk_enabled=True,
                sdk_addr="127.0.0.1:9092",
                sdk_version="1.2",
            ),
            registry_pb2.ServiceInfo(name="pricing", agent_id="agent-1", instances=1, rule="CORAL_SERVICE"),
        ]
        return registry_pb2.ListServicesResponse(services=[one for one in everything if request.name in ("", one.name)])

    async def QueryDatabase(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if not request.sql.lower().startswith("select"):
            raise InvalidArgument("Only SELECT is allowed.", hint="Ask a question.")
        return inspect_pb2.QueryDatabaseResponse(arrow_ipc=encode(self.table), truncated=False)
