"""Collectors that a client starts on the agent itself, with no session at the colony: theirs alone, to the end."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support import build, rpc
from support.stack import Stack
from support.target import running

from coral.events.batch import decode
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc

pytestmark = pytest.mark.kernel

_BEATS_S = 2.5
"""Longer than a colony with a heartbeat each second takes to notice what an agent runs."""


def batches(address: str, collector_id: str, after: int, until: int) -> list[Any]:
    """What the agent streams, up to the batch that is final or reaches a sequence."""
    request = ebpf_pb2.StreamUprobeEventsRequest(collector_id=collector_id, after_sequence=after)
    seen = []
    with rpc.channel(address) as channel:
        for batch in ebpf_pb2_grpc.DebugServiceStub(channel).StreamUprobeEvents(request, timeout=30):
            seen.append(batch)
            if batch.final or batch.last_sequence >= until:
                break
    return seen


def sequences(seen: list[Any]) -> list[int]:
    """The sequences of all events in batches, in their order."""
    return [number for batch in seen if batch.arrow_ipc for number in decode(batch.arrow_ipc)["sequence"].to_pylist()]


@pytest.mark.parametrize("session_id", ["", "of-the-client"])
def test_colony_leaves_it_alone(stack: Stack, session_id: str) -> None:
    """A colony that the agent reports to does not end what a client started there; nobody stores it, and that is said."""
    with running(build.c_program("loop"), "--calls", 700) as target:
        name = f"{session_id}-{target.pid}" if session_id else ""
        request = rpc.collector_request(target.service, "work", 60, session_id=name)
        collector_id = rpc.agent(stack.agent, "StartUprobeCollector", request).collector_id
        time.sleep(_BEATS_S)
        target.run()
        stopped = rpc.agent(
            stack.agent, "StopUprobeCollector", ebpf_pb2.StopUprobeCollectorRequest(collector_id=collector_id)
        )
    ledger = stopped.ledger
    assert (ledger.entered, ledger.returned, ledger.emitted, ledger.in_transit, ledger.stored) == (700, 700, 700, 700, 0)
    assert (stopped.last_sequence, ledger.HasField("balanced")) == (700, False)
    assert (ledger.HasField("open"), ledger.HasField("no_return"), ledger.HasField("too_deep")) == (True, True, True)


def test_retry_and_resume(stack: Stack) -> None:
    """The same session id again is the same collector; a stream resumes where it is told, and ends with a final batch."""
    with running(build.c_program("loop"), "--calls", 1000) as target:
        request = rpc.collector_request(target.service, "work", 60, session_id=f"retried-{target.pid}")
        first, again = (rpc.agent(stack.agent, "StartUprobeCollector", request) for _ in range(2))
        assert again == first
        target.run()
        read = batches(stack.agent, first.collector_id, 0, 1000)
        rpc.agent(stack.agent, "StopUprobeCollector", ebpf_pb2.StopUprobeCollectorRequest(collector_id=first.collector_id))
        rest = batches(stack.agent, first.collector_id, 400, 2000)
    assert sequences(read) == list(range(1, 1001))
    assert sequences(rest) == list(range(401, 1001))
    last = rest[-1]
    assert (last.final, last.status, last.reason_code, last.last_sequence) == (True, "detached", "user", 1000)
    assert [instance.status for instance in last.instances] == ["detached"]
