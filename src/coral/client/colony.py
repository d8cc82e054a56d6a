"""The client of the colony: of people's commands, and of the agents that report to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from coral.client.channel import actor, connect
from coral.client.endpoint import Endpoint
from coral.model.errors import CoralError, Internal, NotFound, Unavailable
from coral.wire._generated.colony.v1 import (
    debug_pb2,
    debug_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    inspect_pb2,
    inspect_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.errors import from_rpc
from coral.wire.metadata import ACTOR_KEY, AUTHORIZATION_KEY

if TYPE_CHECKING:
    import pyarrow as pa

CALL_TIMEOUT_S = 10.0
ATTACH_TIMEOUT_S = 30.0
QUERY_TIMEOUT_S = 40.0
_PAGE = 500
_DIRECTORY_PAGE = 2_000


class ColonyClient:
    """A connection to one colony. Use it as an async context manager, or ``close`` it.

    Every method raises a ``CoralError``: what the colony answered, ``Unavailable`` when it cannot be reached, or
    ``DeadlineExceeded``. Timeouts are in seconds.
    """

    def __init__(self, endpoint: Endpoint | str, *, caller: str | None = None) -> None:
        """Opens a channel; it connects with the first call.

        Args:
            endpoint: The colony; HOST:PORT alone for one that speaks plain text and asks for no credential.
            caller: Who calls, for the audit log of a colony that asks for none; None for the user of this process.

        Raises:
            InvalidArgument: The address is not of that form.
            FailedPrecondition: A credential would travel in plain text.
        """
        if isinstance(endpoint, str):
            endpoint = Endpoint(address=endpoint)
        self._peer = f"The colony at {endpoint.address}"
        self._metadata: tuple[tuple[str, str], ...] = ((ACTOR_KEY, actor() if caller is None else caller),)
        if endpoint.token:
            self._metadata += ((AUTHORIZATION_KEY, f"Bearer {endpoint.token}"),)
        self._secure = endpoint.ca_pem is not None
        self._channel = connect(endpoint)
        self._debug = debug_pb2_grpc.DebugServiceStub(self._channel)
        self._registry = registry_pb2_grpc.RegistryServiceStub(self._channel)
        self._inspect = inspect_pb2_grpc.InspectServiceStub(self._channel)
        self._enrolment = enrolment_pb2_grpc.EnrolmentServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and whatever runs over it."""
        await self._channel.close()

    async def attach(
        self, request: debug_pb2.AttachUprobeRequest, *, timeout_s: float = ATTACH_TIMEOUT_S
    ) -> debug_pb2.AttachUprobeResponse:
        """Starts a session; returns when it is active."""
        response: debug_pb2.AttachUprobeResponse = await self.call(self._debug.AttachUprobe, request, timeout_s)
        return response

    async def detach(self, session_id: str, *, timeout_s: float = CALL_TIMEOUT_S) -> debug_pb2.DetachUprobeResponse:
        """Ends a session; one that has ended stays as it is."""
        request = debug_pb2.DetachUprobeRequest(session_id=session_id)
        response: debug_pb2.DetachUprobeResponse = await self.call(self._debug.DetachUprobe, request, timeout_s)
        return response

    async def session(self, session_id: str, *, timeout_s: float = CALL_TIMEOUT_S) -> debug_pb2.DebugSession:
        """One session as it stands.

        Raises:
            NotFound: There is no such session.
        """
        request = debug_pb2.ListDebugSessionsRequest(session_id=session_id)
        response = await self.call(self._debug.ListDebugSessions, request, timeout_s)
        for session in response.sessions:
            if session.session_id == session_id:
                found: debug_pb2.DebugSession = session
                return found
        raise NotFound(f"There is no session {session_id!r}.", hint="`coral debug session list` shows those there are.")

    async def sessions(self, *, service_name: str = "", status: str = "") -> AsyncIterator[debug_pb2.DebugSession]:
        """Every session, page by page; of one service or in one status if given."""
        token = ""
        while True:
            request = debug_pb2.ListDebugSessionsRequest(
                service_name=service_name, status=status, page_size=_PAGE, page_token=token
            )
            page = await self.call(self._debug.ListDebugSessions, request, CALL_TIMEOUT_S)
            for session in page.sessions:
                yield session
            token = page.next_page_token
            if not token:
                return

    async def results(
        self, session_id: str, *, form: str = "summary", timeout_s: float = CALL_TIMEOUT_S
    ) -> debug_pb2.GetDebugResultsResponse:
        """Statistics, slowest calls and ledger of a session.

        Args:
            session_id: Which.
            form: ``summary``, ``full`` or ``histogram``.
            timeout_s: For how long to wait.
        """
        request = debug_pb2.GetDebugResultsRequest(session_id=session_id, format=form)
        response: debug_pb2.GetDebugResultsResponse = await self.call(self._debug.GetDebugResults, request, timeout_s)
        return response

    async def query_events(self, request: debug_pb2.QueryUprobeEventsRequest) -> debug_pb2.QueryUprobeEventsResponse:
        """One page of stored events."""
        response: debug_pb2.QueryUprobeEventsResponse = await self.call(
            self._debug.QueryUprobeEvents, request, QUERY_TIMEOUT_S
        )
        return response

    async def follow(
        self, session_id: str, *, after: Mapping[str, int], timeout_s: float
    ) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
        """The stored events of a session as they come, until its final batch.

        Args:
            session_id: Which.
            after: By collector id, the sequence up to which events were seen already.
            timeout_s: The stream ends with ``DeadlineExceeded`` after it.
        """
        request = debug_pb2.FollowUprobeEventsRequest(session_id=session_id, after=after)
        batches = self.stream(self._debug.FollowUprobeEvents, request, timeout_s)
        try:
            async for batch in batches:
                yield batch
        finally:
            await batches.aclose()

    async def agents(self) -> list[registry_pb2.Agent]:
        """Every agent, online or not."""
        found: list[registry_pb2.Agent] = []
        token = ""
        while True:
            request = registry_pb2.ListAgentsRequest(page_size=_DIRECTORY_PAGE, page_token=token)
            page = await self.call(self._registry.ListAgents, request, CALL_TIMEOUT_S)
            found += page.agents
            token = page.next_page_token
            if not token:
                return found

    async def services(self, name: str = "") -> list[registry_pb2.ServiceInfo]:
        """Services, one entry per service and agent; of one name if given."""
        found: list[registry_pb2.ServiceInfo] = []
        token = ""
        while True:
            request = registry_pb2.ListServicesRequest(name=name, page_size=_DIRECTORY_PAGE, page_token=token)
            page = await self.call(self._registry.ListServices, request, CALL_TIMEOUT_S)
            found += page.services
            token = page.next_page_token
            if not token:
                return found

    async def register(
        self, request: registry_pb2.RegisterAgentRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> registry_pb2.RegisterAgentResponse:
        """An agent makes itself known."""
        response: registry_pb2.RegisterAgentResponse = await self.call(self._registry.RegisterAgent, request, timeout_s)
        return response

    async def heartbeat(
        self, request: registry_pb2.HeartbeatRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> registry_pb2.HeartbeatResponse:
        """An agent says that it is alive, and what runs on its host."""
        response: registry_pb2.HeartbeatResponse = await self.call(self._registry.Heartbeat, request, timeout_s)
        return response

    async def invite(
        self, request: enrolment_pb2.CreateInviteRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> enrolment_pb2.CreateInviteResponse:
        """An invitation for a host."""
        response: enrolment_pb2.CreateInviteResponse = await self.call(self._enrolment.CreateInvite, request, timeout_s)
        return response

    async def revoke_agent(
        self, request: enrolment_pb2.RevokeAgentRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> enrolment_pb2.RevokeAgentResponse:
        """Puts an agent out."""
        response: enrolment_pb2.RevokeAgentResponse = await self.call(self._enrolment.RevokeAgent, request, timeout_s)
        return response

    async def join(self, request: enrolment_pb2.JoinAgentRequest, *, timeout_s: float) -> enrolment_pb2.JoinAgentResponse:
        """A host joins, with an invitation as the token of the endpoint."""
        response: enrolment_pb2.JoinAgentResponse = await self.call(self._enrolment.JoinAgent, request, timeout_s)
        return response

    async def renew(self, request: enrolment_pb2.RenewAgentRequest, *, timeout_s: float) -> enrolment_pb2.RenewAgentResponse:
        """An agent gets a new certificate."""
        response: enrolment_pb2.RenewAgentResponse = await self.call(self._enrolment.RenewAgent, request, timeout_s)
        return response

    async def query_database(self, sql: str) -> tuple[pa.Table, bool]:
        """The result of one read-only SQL statement, and whether it had more rows than are returned."""
        request = inspect_pb2.QueryDatabaseRequest(sql=sql)
        response = await self.call(self._inspect.QueryDatabase, request, QUERY_TIMEOUT_S)
        try:
            import pyarrow as pa  # a third of a second that only this call needs

            with pa.ipc.open_stream(response.arrow_ipc) as reader:
                return reader.read_all(), response.truncated
        except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid and ArrowIOError
            raise Internal(f"{self._peer} sent a result that is not Arrow: {error}.") from None

    async def functions(
        self, request: inspect_pb2.ListFunctionsRequest, *, timeout_s: float = QUERY_TIMEOUT_S
    ) -> inspect_pb2.ListFunctionsResponse:
        """A page of the functions of a service."""
        response: inspect_pb2.ListFunctionsResponse = await self.call(self._inspect.ListFunctions, request, timeout_s)
        return response

    async def explain(
        self, service_name: str, function_name: str, *, timeout_s: float = QUERY_TIMEOUT_S
    ) -> inspect_pb2.ExplainFunctionResponse:
        """What an attach to a function of a service would do."""
        request = inspect_pb2.ExplainFunctionRequest(service_name=service_name, function_name=function_name)
        response: inspect_pb2.ExplainFunctionResponse = await self.call(self._inspect.ExplainFunction, request, timeout_s)
        return response

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection, for stubs of further services; their calls go through ``call``."""
        return self._channel

    async def call(self, method: Callable[..., Awaitable[Any]], request: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Makes a unary call with the credentials and metadata of this client.

        Args:
            method: Of a stub on ``channel``.
            request: What to ask.
            timeout_s: For how long to wait.

        Raises:
            CoralError: As of every method.
        """
        try:
            return await method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    async def stream(self, method: Callable[..., Any], request: Any, timeout_s: float) -> AsyncGenerator[Any, None]:
        """The messages of a streaming call, made as by ``call``.

        Args:
            method: Of a stub on ``channel``.
            request: What to ask.
            timeout_s: The stream ends with ``DeadlineExceeded`` after it.
        """
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()

    def _error(self, error: grpc.aio.AioRpcError) -> CoralError:
        mapped = from_rpc(error, peer=self._peer)
        if isinstance(mapped, Unavailable) and mapped.message.startswith(self._peer):
            cause = mapped.message.rsplit(": ", 1)[-1].replace(
                "]", ""
            )  # grpc puts what it tried before it: addresses, "last error"
            hint = "Is it running, and is --ca the colony's own?"
            if not self._secure:
                hint = "Start one with `coral dev`, or give --colony HOST:PORT, and --ca FILE for one that has TLS."
            return Unavailable(f"{self._peer} cannot be reached: {cause}", hint=hint)
        return mapped
