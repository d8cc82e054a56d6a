"""An agent without a kernel: a real gRPC server whose events a test makes up, and that can die, come back, and go silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import grpc
import numpy as np
from ulid import ULID

from coral.client.colony import ColonyClient
from coral.events.batch import Origin, encode, to_batch
from coral.events.record import EVENT, Array
from coral.model.errors import CoralError, NotFound
from coral.model.ledger import Ledger
from coral.wire import convert
from coral.wire._generated.colony.v1 import registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc
from coral.wire.server import Server

HEARTBEAT_S = 0.1
SNAPSHOT_S = 0.2


@dataclass(slots=True, kw_only=True)
class SyntheticCollector:
    """One collector: its events, its counters, its end."""

    collector_id: str
    request: ebpf_pb2.StartUprobeCollectorRequest
    agent_id: str
    expires_at_ns: int
    attached: bool = True
    events: Array = field(default_factory=lambda: np.zeros(0, EVENT))
    ledger: Ledger = Ledger()
    status: str = "active"
    reason_code: str = ""
    ended: bool = False
    unauthorised: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def last_sequence(self) -> int:
        """The highest sequence given out."""
        return self.ledger.emitted

    def emit(self, durations_ns: Sequence[int], *, keep: bool = True) -> None:
        """Adds calls that all returned; with ``keep`` false they fall out of the window before anybody reads them."""
        count = len(durations_ns)
        if keep:
            events = np.zeros(count, EVENT)
            events["sequence"] = np.arange(self.last_sequence + 1, self.last_sequence + 1 + count)
            events["timestamp_ns"] = time.time_ns() + np.arange(count)
            events["duration_ns"] = durations_ns
            events["pid"], events["tid"] = 4411, 4415
            self.events = np.concatenate([self.events, events])
        grown = self.ledger
        self.ledger = replace(
            grown, entered=grown.entered + count, returned=grown.returned + count, emitted=grown.emitted + count
        )
        self.ring()

    def end(self, status: str, reason_code: str) -> None:
        """Ends it; the first end counts."""
        if not self.ended:
            self.ended, self.status, self.reason_code = True, status, reason_code
            self.ring()

    def ring(self) -> None:
        """Wakes the readers."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def instances(self) -> list[ebpf_pb2.Instance]:
        """One process."""
        if not self.attached:
            return []
        return [
            ebpf_pb2.Instance(
                pid=4411,
                start_time_ns=5_000_000_000,
                executable="/usr/bin/checkout",
                build_id="ab12",
                image_id="build-id:ab12",
                function_name=self.request.function_name,
                status="detached" if self.ended else "attached",
                method="ret_sites",
                sites=[
                    ebpf_pb2.Site(offset=0x1000, kind="entry", reason="push"),
                    ebpf_pb2.Site(offset=0x1040, kind="return", reason="ret"),
                ],
            )
        ]


class SyntheticAgent(ebpf_pb2_grpc.DebugServiceServicer):
    """The agent of a host that exists in a test only.

    Attributes:
        agent_id: Its name.
        services: Service names it sees, one instance each.
        collectors: By id, of this life.
        refuse: What StartUprobeCollector raises; None to accept.
        attached: Whether new collectors attach an instance at once.
        before_start: What StartUprobeCollector waits for first; None for nothing.
        start_takes_s: How long StartUprobeCollector takes.
        most: How many collectors ran at the same time, at most.
        silent: Whether streams and heartbeats say nothing.
        raw: Bytes that the next batch carries instead of events.
        started: The requests for a start that came in.
        stopped: The collector ids that were asked to stop.
        streamed: After which sequences streams began.
        more_services: Add further services to its server, before it starts.
    """

    def __init__(self, agent_id: str = "agent-1", *, services: Sequence[str] = ("checkout",)) -> None:
        self.agent_id = agent_id
        self.services = list(services)
        self.boot_id = str(ULID())
        self.address = "127.0.0.1:0"
        self.collectors: dict[str, SyntheticCollector] = {}
        self.refuse: CoralError | None = None
        self.attached = True
        self.before_start: asyncio.Event | None = None
        self.start_takes_s = 0.0
        self.most = 0
        self._starting: dict[str, asyncio.Task[ebpf_pb2.StartUprobeCollectorResponse]] = {}
        self.silent = False
        self.raw = b""
        self.started: list[ebpf_pb2.StartUprobeCollectorRequest] = []
        self.stopped: list[str] = []
        self.streamed: list[int] = []
        self.more_services: list[Callable[[grpc.aio.Server], None]] = []
        self._server: Server | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._deadlines: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def only(self) -> SyntheticCollector:
        """Its one collector."""
        (collector,) = self.collectors.values()
        return collector

    async def start(self) -> None:
        """Serves, on the port it had before if it had one."""
        self._server = self._make_server()
        ebpf_pb2_grpc.add_DebugServiceServicer_to_server(self, self._server.grpc)
        for add in self.more_services:
            add(self._server.grpc)
        self.address = await self._server.start(
            self.address, services=["coral.mesh.v1.DebugService"], flag="--listen", credentials=self._credentials()
        )

    def _make_server(self) -> Server:
        return Server()

    def _credentials(self) -> grpc.ServerCredentials | None:
        return None

    async def kill(self) -> None:
        """Dies: connections break, nothing is said any more."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.wait({self._reporting})
            self._reporting = None
        for task in (*self._deadlines, *self._starting.values()):
            task.cancel()
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def come_back(self, colony: str) -> None:
        """Starts a new life on the same port: with another boot id, knowing no collector."""
        self.boot_id = str(ULID())
        self.collectors = {}
        await self.start()
        await self.report_to(colony)

    async def report_to(self, colony: str) -> None:
        """Registers, and sends heartbeats from then on."""
        registered = asyncio.Event()
        if self._reporting is not None:
            self._reporting.cancel()
        self._reporting = asyncio.create_task(self._report(colony, registered))
        async with asyncio.timeout(10):
            await registered.wait()

    async def _report(self, colony: str, registered: asyncio.Event) -> None:
        async with ColonyClient(colony, caller=f"agent:{self.agent_id}") as client:
            epoch = 0
            while True:
                try:
                    epoch = await self._beat(client, epoch)
                    registered.set()
                except CoralError:
                    epoch = 0
                await asyncio.sleep(HEARTBEAT_S)

    async def _beat(self, client: ColonyClient, epoch: int) -> int:
        services = [registry_pb2.ServiceInfo(name=name, instances=1, rule="executable") for name in self.services]
        if not epoch:
            request = registry_pb2.RegisterAgentRequest(
                agent_id=self.agent_id,
                address=self.address,
                version="0.1.0",
                hostname="host-of-" + self.agent_id,
                boot_id=self.boot_id,
                services=services,
                kernel="6.18.44",
                methods=["uprobe_multi"],
            )
            return (await client.register(request)).epoch
        if self.silent:
            return epoch
        running = [one.collector_id for one in self.collectors.values() if not one.ended]
        beat = registry_pb2.HeartbeatRequest(
            agent_id=self.agent_id, epoch=epoch, services=services, collectors=running, starting=list(self._starting)
        )
        return 0 if (await client.heartbeat(beat)).register_again else epoch

    async def StartUprobeCollector(
        self, request: ebpf_pb2.StartUprobeCollectorRequest, context: Any
    ) -> ebpf_pb2.StartUprobeCollectorResponse:
        """Starts a collector, or gives the one that the session has."""
        self.started.append(request)
        task = self._starting.get(request.session_id)
        if task is None:
            # As in a real one, a task of its own: a caller that goes away does not stop it.
            task = self._starting[request.session_id] = asyncio.create_task(self._start(request))
            task.add_done_callback(lambda _: self._starting.pop(request.session_id, None))
        return await asyncio.shield(task)

    async def _start(self, request: ebpf_pb2.StartUprobeCollectorRequest) -> ebpf_pb2.StartUprobeCollectorResponse:
        if self.before_start is not None:
            await self.before_start.wait()
        await asyncio.sleep(self.start_takes_s)
        if self.refuse is not None:
            raise self.refuse
        known = [one for one in self.collectors.values() if one.request.session_id == request.session_id]
        if known:
            collector = known[0]
        else:
            duration_ns = convert.duration_ns(request.duration)
            collector = SyntheticCollector(
                collector_id=str(ULID()),
                request=request,
                agent_id=self.agent_id,
                expires_at_ns=time.time_ns() + duration_ns,
                attached=self.attached,
                status="active" if self.attached else "pending",
            )
            self.collectors[collector.collector_id] = collector
            self.most = max(self.most, sum(not one.ended for one in self.collectors.values()))
            deadline = asyncio.create_task(_expire(collector, duration_ns / 1e9))
            self._deadlines.add(deadline)
            deadline.add_done_callback(self._deadlines.discard)
        return ebpf_pb2.StartUprobeCollectorResponse(
            collector_id=collector.collector_id,
            expires_at=convert.timestamp(collector.expires_at_ns),
            supported=True,
            instances=collector.instances(),
        )

    async def StopUprobeCollector(
        self, request: ebpf_pb2.StopUprobeCollectorRequest, context: Any
    ) -> ebpf_pb2.StopUprobeCollectorResponse:
        """Ends a collector as detached."""
        self.stopped.append(request.collector_id)
        collector = self._get(request.collector_id)
        collector.end("detached", "user")
        return ebpf_pb2.StopUprobeCollectorResponse(
            success=True, ledger=convert.ledger_to(collector.ledger), last_sequence=collector.last_sequence
        )

    async def StreamUprobeEvents(
        self, request: ebpf_pb2.StreamUprobeEventsRequest, context: Any
    ) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
        """Follows a collector: events as they come, a snapshot now and then, a final batch."""
        collector = self._get(request.collector_id)
        self.streamed.append(request.after_sequence)
        after = request.after_sequence
        while True:
            changed = collector.changed
            if self.silent:
                await asyncio.Event().wait()  # like a host that is cut off: the stream neither speaks nor ends
            events = collector.events[collector.events["sequence"] > after]
            final = collector.ended
            yield self._batch(collector, events, after, final=final)
            if final:
                return
            after = int(events["sequence"][-1]) if len(events) else after
            try:
                async with asyncio.timeout(SNAPSHOT_S):
                    await changed.wait()
            except TimeoutError:
                continue

    def _batch(self, collector: SyntheticCollector, events: Array, after: int, *, final: bool) -> ebpf_pb2.UprobeEventBatch:
        origin = Origin(
            collector_id=collector.collector_id,
            agent_id=self.agent_id,
            service_name=collector.request.service_name,
            function_name=collector.request.function_name,
        )
        return ebpf_pb2.UprobeEventBatch(
            arrow_ipc=self.raw or (encode(to_batch(events, origin)) if len(events) else b""),
            first_sequence=int(events["sequence"][0]) if len(events) else 0,
            last_sequence=collector.last_sequence if final else int(events["sequence"][-1]) if len(events) else after,
            ledger=convert.ledger_to(collector.ledger),
            instances=collector.instances(),
            collector_id=collector.collector_id,
            final=final,
            status=collector.status,
            reason_code=collector.reason_code,
            unauthorised=collector.unauthorised,
        )

    def _get(self, collector_id: str) -> SyntheticCollector:
        found = self.collectors.get(collector_id)
        if found is None:
            raise NotFound(f"There is no collector {collector_id!r} on agent {self.agent_id}.")
        return found


async def _expire(collector: SyntheticCollector, after_s: float) -> None:
    await asyncio.sleep(after_s)
    collector.end("expired", "deadline")
