"""The two services over gRPC, as a client of any language would call them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from coral.wire._generated.colony.v1 import debug_pb2, debug_pb2_grpc, registry_pb2, registry_pb2_grpc
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc

DEADLINE_S = 30


@contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """A channel of its own: a restarted server must not be judged by the state of an older connection."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options=options) as made:
        yield made


def colony(address: str, method: str, request: Any) -> Any:
    """Calls one method of the colony's DebugService."""
    with channel(address) as made:
        return getattr(debug_pb2_grpc.DebugServiceStub(made), method)(request, timeout=DEADLINE_S)


def registry(address: str, method: str, request: Any) -> Any:
    """Calls one method of the colony's RegistryService."""
    with channel(address) as made:
        return getattr(registry_pb2_grpc.RegistryServiceStub(made), method)(request, timeout=DEADLINE_S)


def agent(address: str, method: str, request: Any) -> Any:
    """Calls one method of the agent's DebugService."""
    with channel(address) as made:
        return getattr(ebpf_pb2_grpc.DebugServiceStub(made), method)(request, timeout=DEADLINE_S)


def attach(address: str, service: str, function: str, seconds: float = 60, **fields: Any) -> Any:
    """Attaches through the colony, and returns its response."""
    request = debug_pb2.AttachUprobeRequest(service_name=service, function_name=function, **fields)
    request.duration.FromNanoseconds(round(seconds * 1e9))
    return colony(address, "AttachUprobe", request)


def sessions(address: str, **fields: Any) -> list[Any]:
    """The sessions that the colony lists."""
    return list(colony(address, "ListDebugSessions", debug_pb2.ListDebugSessionsRequest(**fields)).sessions)


def wait_for_session(address: str, timeout_s: float = 20, *, status: str, **fields: Any) -> Any:
    """The first session of these fields that reaches ``status``."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = sessions(address, **fields)
        for session in found:
            if session.status == status:
                return session
        if time.monotonic() > deadline:
            raise TimeoutError(f"no session of {fields} is {status} after {timeout_s} s: {found}")
        time.sleep(0.02)


def agents(address: str) -> dict[str, Any]:
    """The agents that the colony knows, by id."""
    return {one.agent_id: one for one in registry(address, "ListAgents", registry_pb2.ListAgentsRequest()).agents}


def wait_for_agent(address: str, agent_id: str, status: str, timeout_s: float = 20) -> None:
    """Waits until the colony sees an agent as ``online`` or ``offline``."""
    deadline = time.monotonic() + timeout_s
    while (seen := agents(address).get(agent_id)) is None or seen.status != status:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{agent_id} is not {status} after {timeout_s} s: {seen}")
        time.sleep(0.02)


def wait_until_healthy(address: str, timeout_s: float = 30) -> None:
    """Waits until a server answers its health check."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with channel(address) as made:
                stub: Any = health_pb2_grpc.HealthStub(made)
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
        except grpc.RpcError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address} is not healthy after {timeout_s} s") from error
        time.sleep(0.05)


def error_info(error: Any) -> error_details_pb2.ErrorInfo:
    """The ``google.rpc.ErrorInfo`` of a status; an AssertionError when it has none."""
    status = rpc_status.from_call(error)  # an RpcError of a blocking call is a Call too
    assert status is not None, f"no details in {error}"
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    raise AssertionError(f"no ErrorInfo in {status}")


def collector_request(service: str, function: str, seconds: float = 60, **fields: Any) -> Any:
    """A request for the agent's StartUprobeCollector."""
    request = ebpf_pb2.StartUprobeCollectorRequest(service_name=service, function_name=function, **fields)
    request.duration.FromNanoseconds(round(seconds * 1e9))
    return request
