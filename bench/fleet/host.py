"""The host of a simulated agent as its colony calls it: collectors whose events follow from the clock."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ulid import ULID

from bench.fleet.plan import Part
from coral.agent.guard import AgentGuard
from coral.agent.identity import Identity
from coral.agent.refusals import Refusals
from coral.events.batch import Origin, encode, to_batch
from coral.events.record import EVENT, Array
from coral.model.errors import NotFound
from coral.model.ledger import Ledger
from coral.trust.authority import KeyPair
from coral.wire import convert
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc
from coral.wire.server import Server
from coral.wire.tls import server_credentials

_TICK_S = 0.1
_SNAPSHOT_S = 1.0
_BATCH = 65_536
_WINDOW = 2_000_000
"""Events that a reader may be behind: 128 MiB of them."""


@dataclass(slots=True)
class Pulse:
    """Which events there are: from the moment at which they are asked for, at a steady rate."""

    events_per_s: float = 0.0
    since: float = 0.0

    def due(self, now: float) -> int:
        """How many calls have returned by then, of the monotonic clock."""
        return round((now - self.since) * self.events_per_s) if self.events_per_s else 0


@dataclass(slots=True, kw_only=True)
class _Collector:
    request: ebpf_pb2.StartUprobeCollectorRequest
    collector_id: str = field(default_factory=lambda: str(ULID()))
    instances: list[ebpf_pb2.Instance]
    pulse: Pulse
    ends_at: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: str = "active"
    reason_code: str = ""
    reached: int = 0

    def emitted(self) -> int:
        """How many events it has numbered; none after its end."""
        if not self.ended.is_set():
            self.reached = max(self.reached, self.pulse.due(min(time.monotonic(), self.ends_at)))
        return self.reached

    def ledger(self) -> ebpf_pb2.Ledger:
        """Its counters now."""
        count = self.emitted()
        return convert.ledger_to(Ledger(entered=count, returned=count, emitted=count))

    def end(self, status: str, reason_code: str) -> None:
        """Ends it, once."""
        if not self.ended.is_set():
            self.emitted()
            self.status, self.reason_code = status, reason_code
            self.ended.set()


class Host(ebpf_pb2_grpc.DebugServiceServicer):
    """One reached agent.

    Attributes:
        address: HOST:PORT of its server.
        boot_id: Of its life.
        running: The ids of its collectors that have not ended.
        emitted: Events that its collectors have numbered.
    """

    def __init__(self, agent_id: str, part: Part, pulse: Pulse) -> None:
        self.agent_id = agent_id
        self.boot_id = str(ULID())
        self.address = ""
        self._part = part
        self._pulse = pulse
        self._collectors: dict[str, _Collector] = {}
        self._server: Server | None = None
        self._deadlines: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> list[str]:
        return [each.collector_id for each in self._collectors.values() if not each.ended.is_set()]

    @property
    def emitted(self) -> int:
        return sum(each.emitted() for each in self._collectors.values())

    async def start(self) -> None:
        """Serves on a free port."""
        credentials, guard = None, None
        if self._part.secured and self._part.certificates is not None:
            certificate, key = self._part.certificates[self.agent_id]
            identity = Identity(
                agent_id=self.agent_id, colony_id=self._part.colony_id, invite_id="", agent_port=0, ca=self._part.ca,
                command_key=self._part.command_key, certificate=certificate, key=key,
            )  # fmt: skip
            guard = AgentGuard(identity, boot_id=self.boot_id, refusals=Refusals())
            pair = KeyPair(certificate=certificate.encode(), key=key.encode())
            credentials = server_credentials(lambda: pair, clients_of=self._part.ca.encode())
        self._server = Server(guard)
        ebpf_pb2_grpc.add_DebugServiceServicer_to_server(self, self._server.grpc)
        self.address = await self._server.start(
            "127.0.0.1:0", services=["coral.mesh.v1.DebugService"], flag="--listen", credentials=credentials
        )

    async def stop(self) -> None:
        """Ends the server."""
        for task in self._deadlines:
            task.cancel()
        if self._server is not None:
            await self._server.stop(0)

    async def StartUprobeCollector(
        self, request: ebpf_pb2.StartUprobeCollectorRequest, context: Any
    ) -> ebpf_pb2.StartUprobeCollectorResponse:
        """Starts a collector, or gives the one that the session has."""
        known = next((each for each in self._collectors.values() if each.request.session_id == request.session_id), None)
        duration_s = convert.duration_ns(request.duration) / 1e9
        if known is None:
            known = _Collector(
                request=request,
                instances=[_instance(number, request.function_name) for number in range(self._part.instances)],
                pulse=self._pulse,
                ends_at=time.monotonic() + duration_s,
            )
            self._collectors[known.collector_id] = known
            deadline = asyncio.create_task(_expire(known))
            self._deadlines.add(deadline)
            deadline.add_done_callback(self._deadlines.discard)
        return ebpf_pb2.StartUprobeCollectorResponse(
            collector_id=known.collector_id,
            expires_at=convert.timestamp(time.time_ns() + round(duration_s * 1e9)),
            supported=True,
            instances=known.instances,
        )

    async def StopUprobeCollector(
        self, request: ebpf_pb2.StopUprobeCollectorRequest, context: Any
    ) -> ebpf_pb2.StopUprobeCollectorResponse:
        """Ends a collector as detached."""
        collector = self._get(request.collector_id)
        collector.end("detached", "user")
        return ebpf_pb2.StopUprobeCollectorResponse(
            success=True, ledger=collector.ledger(), last_sequence=collector.emitted()
        )

    async def StreamUprobeEvents(
        self, request: ebpf_pb2.StreamUprobeEventsRequest, context: Any
    ) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
        """Follows a collector: events ten times a second, a snapshot every second, a final batch."""
        collector = self._get(request.collector_id)
        after, said_at, started = request.after_sequence, 0.0, False
        tick_s = max(_TICK_S, request.gather_ms / 1000)
        origin = Origin(
            collector_id=collector.collector_id,
            agent_id=self.agent_id,
            service_name=collector.request.service_name,
            function_name=collector.request.function_name,
        )
        while True:
            upto = collector.emitted()
            first = max(after, upto - _WINDOW) + 1
            last = min(upto, first + _BATCH - 1)
            final = collector.ended.is_set() and last == upto
            now = time.monotonic()
            snapshot = final or now - said_at >= _SNAPSHOT_S
            if last >= first or snapshot:
                said_at = now if snapshot else said_at
                first_batch, started = not started, True
                yield ebpf_pb2.UprobeEventBatch(
                    arrow_ipc=encode(to_batch(_events(first, last), origin)) if last >= first else b"",
                    first_sequence=first if last >= first else 0,
                    last_sequence=max(last, after),
                    ledger=collector.ledger(),
                    instances=collector.instances if final or first_batch else [],
                    collector_id=collector.collector_id,
                    final=final,
                    status=collector.status,
                    reason_code=collector.reason_code,
                )
            if final:
                return
            after = max(last, after)
            if upto - after < _BATCH and not collector.ended.is_set():
                try:
                    async with asyncio.timeout(tick_s if self._pulse.events_per_s else _SNAPSHOT_S):
                        await collector.ended.wait()
                except TimeoutError:
                    continue

    async def QueryUprobeEvents(
        self, request: ebpf_pb2.QueryUprobeEventsRequest, context: Any
    ) -> ebpf_pb2.QueryUprobeEventsResponse:
        """Keeps no events: what is asked for again is made again."""
        raise NotFound(f"Agent {self.agent_id} keeps no events.")

    def _get(self, collector_id: str) -> _Collector:
        try:
            return self._collectors[collector_id]
        except KeyError:
            raise NotFound(f"There is no collector {collector_id!r} on agent {self.agent_id}.") from None


async def _expire(collector: _Collector) -> None:
    await asyncio.sleep(collector.ends_at - time.monotonic())
    collector.end("expired", "deadline")


def _events(first: int, last: int) -> Array:
    """Events of these sequences; the same ones when they are asked for again, but for their times."""
    sequences = np.arange(first, last + 1, dtype="u8")
    events = np.zeros(len(sequences), EVENT)
    events["sequence"] = sequences
    events["timestamp_ns"] = time.time_ns() + np.arange(len(sequences))
    events["duration_ns"] = 1_000 + sequences * 7919 % 1_000_003
    events["pid"] = events["tid"] = 4000 + sequences % 10
    return events


def _instance(number: int, function_name: str) -> ebpf_pb2.Instance:
    return ebpf_pb2.Instance(
        pid=4000 + number,
        start_time_ns=5_000_000_000 + number,
        executable="/usr/bin/checkout",
        build_id="3f1c0a9be4d2",
        image_id="build-id:3f1c0a9be4d2",
        function_name=function_name,
        status="attached",
        method="ret_sites",
        sites=[
            ebpf_pb2.Site(offset=0x1000, kind="entry", reason="push"),
            ebpf_pb2.Site(offset=0x1040, kind="return", reason="ret"),
            ebpf_pb2.Site(offset=0x1080, kind="return", reason="ret"),
        ],
    )
