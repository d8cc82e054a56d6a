"""The agent's RPCs: coral.mesh.v1.DebugService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from coral.agent.collector import Collector
from coral.agent.collectors import Collectors
from coral.agent.gather import Gather
from coral.agent.policy import LocalPolicy
from coral.agent.sdk_hint import answers
from coral.events import batch
from coral.model.errors import InvalidArgument, NotFound
from coral.model.probe import ProbeSpec
from coral.model.session import InstanceStatus
from coral.model.site import Method
from coral.model.text import check_name
from coral.wire import convert, paging
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc
from coral.wire.metadata import COLONY_KEY

_SNAPSHOT_S = 1.0
_LAST_TIME_NS = (1 << 63) - 1


class DebugServicer(ebpf_pb2_grpc.DebugServiceServicer):
    """Serves the collectors of this host.

    Args:
        collectors: Those of the agent.
        policy: Whether values may leave this host; what is refused by it the collectors know.
    """

    def __init__(self, collectors: Collectors, policy: LocalPolicy | None = None) -> None:
        self._collectors = collectors
        self._policy = policy or LocalPolicy()

    async def StartUprobeCollector(  # noqa: N802  (the name of the RPC)
        self, request: ebpf_pb2.StartUprobeCollectorRequest, context: Any
    ) -> ebpf_pb2.StartUprobeCollectorResponse:
        """Attaches; returns once the breakpoints of at least one instance were read back."""
        agent_id = self._collectors.agent_id
        check_name(request.agent_id, "agent_id", required=False)
        if request.agent_id not in ("", agent_id):
            raise NotFound(
                f"This is agent {agent_id!r}, not {request.agent_id!r}.", hint="Leave agent_id out; it is never needed."
            )
        config = convert.config_from(request.config)
        if not self._policy.allow_values:
            # From here on nobody knows that they were wanted, so that nothing can make them leave the host.
            config = replace(config, capture_args=False, capture_return=False)
        spec = ProbeSpec(
            service_name=request.service_name,
            function_name=request.function_name,
            duration_ns=convert.requested_duration_ns(request),
            config=config,
            filter=convert.filter_from(request.filter),
            sdk_addr=request.sdk_addr,
        )
        check_name(request.session_id, "session_id", required=False)
        check_name(request.actor, "actor", required=False)
        if spec.sdk_addr:
            await answers(spec.sdk_addr)
        collector = await self._collectors.start(
            spec,
            session_id=request.session_id,
            actor=request.actor or context.peer(),
            of_colony=any(key == COLONY_KEY for key, _ in context.invocation_metadata() or ()),
            authorised=frozenset(request.authorised.marks) if request.HasField("authorised") else None,
        )
        return ebpf_pb2.StartUprobeCollectorResponse(
            collector_id=collector.collector_id,
            expires_at=convert.timestamp(collector.expires_at_ns),
            supported=True,
            error=" ".join(filter(None, (_warning(collector), self._without_values(request.config)))),
            instances=[convert.instance_to(instance) for instance in collector.instances],
        )

    def _without_values(self, wanted: ebpf_pb2.UprobeConfig) -> str:
        """Why events come without values that were asked for; empty when none were."""
        if not (wanted.capture_args or wanted.capture_return):
            return ""
        text = "This version does not capture arguments or return values; events come without them."
        if self._policy.allow_values:
            return text
        return (
            f"{text} The policy of this host would not let them leave it (agent.allow_values, {self._policy.values_place})."
        )

    async def StopUprobeCollector(  # noqa: N802
        self, request: ebpf_pb2.StopUprobeCollectorRequest, context: Any
    ) -> ebpf_pb2.StopUprobeCollectorResponse:
        """Detaches; returns once the original bytes were read back."""
        collector = await self._collectors.stop(check_name(request.collector_id, "collector_id"))
        return ebpf_pb2.StopUprobeCollectorResponse(
            success=True,
            ledger=_ledger(collector),
            last_sequence=collector.window.last_sequence,
        )

    async def QueryUprobeEvents(  # noqa: N802
        self, request: ebpf_pb2.QueryUprobeEventsRequest, context: Any
    ) -> ebpf_pb2.QueryUprobeEventsResponse:
        """Reads from the window. Pages show what was there at the first of them."""
        collector = self._collectors.get(check_name(request.collector_id, "collector_id"))
        size = paging.page_size(request.max_events, field="max_events")
        start_ns = convert.timestamp_ns(request.start_time) if request.HasField("start_time") else 0
        end_ns = convert.timestamp_ns(request.end_time) if request.HasField("end_time") else _LAST_TIME_NS
        query = {"collector": collector.collector_id, "start": start_ns, "end": end_ns}
        state: dict[str, Any] = {"last": collector.window.last_sequence, "after": [-1, 0]}
        if request.page_token:
            state = paging.read_token(request.page_token, query)
        events = collector.window.between(start_ns, end_ns, state["last"])
        time_ns, sequence = state["after"]
        later = (events["timestamp_ns"] > time_ns) | ((events["timestamp_ns"] == time_ns) & (events["sequence"] > sequence))
        events = events[later]
        page, has_more = events[:size], len(events) > size
        token = ""
        if has_more:
            last = page[-1]
            token = paging.make_token(query, {**state, "after": [int(last["timestamp_ns"]), int(last["sequence"])]})
        return ebpf_pb2.QueryUprobeEventsResponse(
            events=convert.ebpf_events(batch.rows(batch.to_batch(page, collector.origin))),
            has_more=has_more,
            next_page_token=token,
        )

    async def StreamUprobeEvents(  # noqa: N802
        self, request: ebpf_pb2.StreamUprobeEventsRequest, context: Any
    ) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
        """Follows a collector: events as they come, a snapshot every second, and a final batch."""
        collector = self._collectors.get(check_name(request.collector_id, "collector_id"))
        after = request.after_sequence
        if after > collector.window.last_sequence:
            raise InvalidArgument(
                f"after_sequence {after} is beyond the last one, {collector.window.last_sequence}.",
                hint="Give the last sequence that was received.",
            )
        sent_revision = -1
        gather, clock = Gather(gather_s=request.gather_ms / 1000), asyncio.get_running_loop().time
        with collector.listen() as changed, collector.read_from(after) as reader:
            while True:
                changed.clear()
                ended = collector.ended.is_set()
                events = collector.window.after(after, gather.most)
                first, after = (int(events["sequence"][0]), int(events["sequence"][-1])) if len(events) else (0, after)
                final = ended and after == collector.window.last_sequence
                # Read before the yield: what changes while the reader takes the batch is for the next one.
                revision = collector.revision
                gather.sent(now_s=clock(), events=len(events))
                yield ebpf_pb2.UprobeEventBatch(
                    arrow_ipc=batch.encode(batch.to_batch(events, collector.origin)) if len(events) else b"",
                    first_sequence=first,
                    last_sequence=after,
                    ledger=_ledger(collector),
                    instances=_instances(collector) if final or revision != sent_revision else (),
                    collector_id=collector.collector_id,
                    final=final,
                    status=collector.status,
                    reason_code=collector.reason_code,
                    unauthorised=bool(collector.unauthorised),
                )
                gather.taken(now_s=clock())
                reader.taken = after
                self._collectors.relieve()
                sent_revision = revision
                if final:
                    return
                if collector.window.last_sequence == after and not collector.ended.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_SNAPSHOT_S):
                            await changed.wait()
                pause_s = gather.wait_s(now_s=clock(), waiting=collector.window.last_sequence - after)
                if pause_s and not collector.ended.is_set():
                    await asyncio.sleep(pause_s)


def _ledger(collector: Collector) -> ebpf_pb2.Ledger:
    # What was stored only the colony knows, so the agent does not judge whether the whole balances.
    return convert.ledger_to(replace(collector.ledger, final=False))


def _instances(collector: Collector) -> list[ebpf_pb2.Instance]:
    return [convert.instance_to(instance) for instance in collector.instances]


def _warning(collector: Collector) -> str:
    """What did not work, or not fully, although the attach as a whole did; empty when all did."""
    warnings = []
    instances = collector.instances
    failed = [instance for instance in instances if instance.status is InstanceStatus.FAILED]
    if failed:
        first = failed[0]
        warnings.append(
            f"{len(failed)} of {len(instances)} processes could not be probed. Process {first.pid}: {first.reason}"
        )
    entry_only = next((instance for instance in instances if instance.method == Method.ENTRY_ONLY), None)
    if entry_only is not None:
        warnings.append(f"Only entries are seen, no returns and no durations: {entry_only.reason}")
    return " ".join(warnings)
