"""One way of running a gRPC server, for the colony and the agent alike.

It never shares its port (grpc sets SO_REUSEPORT by default, and a second daemon would silently take half of the calls),
answers health checks and reflection, and turns every error of a handler into a status with details. Requests are
deserialized here rather than by grpc, because grpc reports bytes that are no message as INTERNAL.
"""

from __future__ import annotations

import errno
import inspect
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coral.model.errors import CoralError, FailedPrecondition, Internal, InvalidArgument, Unimplemented
from coral.model.principal import serve_as
from coral.model.text import printable
from coral.telemetry.calls import Calls
from coral.wire.address import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, split_address
from coral.wire.errors import abort
from coral.wire.guard import Guard, LocalGuard, call_of
from coral.wire.streams import while_valid

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Whoever can connect can hold what a connection costs: it has to say something soon, not too much, and to go when idle.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.max_metadata_size", 16 << 10),  # a JWT with the groups of a large company has some 8 KiB
    ("grpc.absolute_max_metadata_size", 24 << 10),
)
MAX_CONNECTIONS = 4096

_OK = "OK"
_OPEN = (f"/{health.SERVICE_NAME}/", f"/{reflection.SERVICE_NAME}/")
_OPEN_GUARD = LocalGuard()

_log = structlog.get_logger(__name__)


class Gate(grpc.aio.ServerInterceptor):
    """What every RPC passes through: the guard, then the parser, then the guard again, then its handler.

    What any of them raises becomes a status: CoralError its own, the rest INTERNAL and a line in the log. Health and
    reflection are open to everybody who gets a connection; what can be neither guarded nor left open does not exist.

    Args:
        guard: Who may come in.
        services: Full names of what the server serves, for who asks for something else; may be filled in later.
        calls: Where what it answers is counted; None for nowhere that anybody looks.
    """

    def __init__(self, guard: Guard, services: Sequence[str] = (), *, calls: Calls | None = None) -> None:
        self._guard = guard
        self._services = services
        self._calls = calls or Calls()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Wraps the handler that ``continuation`` finds."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        open_to_all = method.startswith(_OPEN)
        if handler is None:
            return grpc.unary_unary_rpc_method_handler(self._unknown(method))
        if open_to_all and (handler.request_streaming or not _guardable(handler)):
            return handler
        if handler.request_streaming or not _guardable(handler):
            return grpc.unary_unary_rpc_method_handler(self._unknown(method))
        guard: Guard = _OPEN_GUARD if open_to_all else self._guard

        def parsed(raw: bytes) -> Any:
            try:
                return handler.request_deserializer(raw)
            except DecodeError:
                raise InvalidArgument(
                    f"The request is no message of {method}.", hint="Ask the server's reflection for its form."
                ) from None

        async def unary(raw: bytes, context: Any) -> Any:
            with self._calls.answering(method, timed=True) as counted:
                try:
                    call = call_of(context, method, raw)
                    principal = await guard.authenticate(call)
                    async with guard.serving(principal, call):
                        request = parsed(raw)
                        await guard.authorise(principal, call, request, raw)
                        serve_as(principal)
                        response = await handler.unary_unary(request, context)
                    counted.code = _OK
                    return response
                except Exception as error:  # noqa: BLE001  (the boundary of the process: nothing may pass it unmapped)
                    counted.code = _code_of(error, context)
                    return await self._abort(context, method, error)

        async def stream(raw: bytes, context: Any) -> Any:
            with self._calls.answering(method, timed=False) as counted:
                try:
                    call = call_of(context, method, raw)
                    principal = await guard.authenticate(call)
                    async with guard.serving(principal, call):
                        request = parsed(raw)
                        await guard.authorise(principal, call, request, raw)
                        serve_as(principal)
                        responses = handler.unary_stream(request, context)
                        async with aclosing(while_valid(responses, lambda: guard.recheck(principal, call))) as passing:
                            async for response in passing:
                                yield response
                    counted.code = _OK
                except Exception as error:  # noqa: BLE001  (likewise)
                    counted.code = _code_of(error, context)
                    await self._abort(context, method, error)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)

    def _unknown(self, method: str) -> Callable[[bytes, Any], Awaitable[Any]]:
        async def refuse(_raw: bytes, context: Any) -> Any:
            await abort(
                context,
                Unimplemented(
                    f"There is no method {printable(method)} here: this server has {', '.join(self._services)}.",
                    hint="Is that the address of the right server? Colony and agent listen on different ports.",
                ),
            )

        return refuse

    async def _abort(self, context: Any, method: str, error: Exception) -> None:
        if isinstance(error, grpc.aio.AbortError | grpc.RpcError):
            raise error
        if not isinstance(error, CoralError):
            _log.error("rpc failed", method=method, exc_info=error)
            error = Internal(f"{method} failed: {type(error).__name__}: {error}", hint="The daemon's log has the details.")
        await abort(context, error)


def _guardable(handler: Any) -> bool:
    """Whether a handler takes one message and answers with one, or yields them."""
    if handler.request_streaming or handler.request_deserializer is None:
        return False
    return not handler.response_streaming or inspect.isasyncgenfunction(inspect.unwrap(handler.unary_stream))


def _code_of(error: Exception, context: Any) -> str:
    """The name of the status that an error of a handler becomes."""
    if isinstance(error, CoralError):
        return error.code
    if isinstance(error, grpc.aio.AbortError):
        code = context.code()
        return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
    return "INTERNAL"


class Server:
    """A gRPC server of one daemon, with health and reflection.

    Args:
        guard: Who may come in; None for everybody, which is for loopback only.
        max_connections: How many each port takes; further ones are closed at once.

    Attributes:
        grpc: What services are added to.
        calls: What it answered.
    """

    def __init__(self, guard: Guard | None = None, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._guard = guard or LocalGuard()
        self._names: list[str] = []
        self.calls = Calls()
        self.grpc = grpc.aio.server(
            interceptors=(Gate(self._guard, self._names, calls=self.calls),),
            options=[*OPTIONS, ("grpc.max_allowed_incoming_connections", max_connections)],
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)

    def bind(self, listen: str, *, flag: str, credentials: grpc.ServerCredentials | None = None) -> str:
        """Binds a port. It serves from ``start`` on; a server may have several.

        Args:
            listen: HOST:PORT; port 0 takes a free one.
            flag: The command-line flag that changes the port, for the message when it is taken.
            credentials: For TLS; None for plain text.

        Returns:
            HOST:PORT with the port that it really has.

        Raises:
            FailedPrecondition: The port is taken or may not be bound.
        """
        host, _ = split_address(listen)
        try:
            if credentials is None:
                port = self.grpc.add_insecure_port(listen)
            else:
                port = self.grpc.add_secure_port(listen, credentials)
        except RuntimeError:
            raise FailedPrecondition(
                f"Cannot listen on {listen}: {_why_not(listen)}.", hint=f"Choose another with {flag}."
            ) from None
        return f"{host}:{port}"

    async def start(
        self, listen: str, *, services: Sequence[str], flag: str, credentials: grpc.ServerCredentials | None = None
    ) -> str:
        """Binds and serves.

        Args:
            listen: As for ``bind``.
            services: Full names of the services that were added to ``grpc``.
            flag: As for ``bind``.
            credentials: As for ``bind``.

        Returns:
            HOST:PORT with the port that it really has.

        Raises:
            FailedPrecondition: The port is taken or may not be bound.
            Internal: The guard has no rule for one of the methods.
        """
        self._names[:] = [*services, health.SERVICE_NAME]
        self._guard.check_methods(methods_of(services))
        reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self.grpc)
        address = self.bind(listen, flag=flag, credentials=credentials)
        await self.grpc.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return address

    async def report(self, name: str, *, healthy: bool) -> None:
        """Lets the health service answer for a part of this daemon under a name that is no service's."""
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(name, serving if healthy else not_serving)

    async def serve(self, serving: bool) -> None:
        """Lets the health service say of the whole daemon, and of each of its services, whether it works."""
        for name in ("", *self._names):
            await self.report(name, healthy=serving)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Says so in the health service, lets running calls finish for ``grace_s``, then ends them."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace_s)


def methods_of(services: Sequence[str]) -> list[str]:
    """The full names of the methods of services, from their descriptors.

    Args:
        services: Full names of services whose generated modules are loaded.
    """
    pool = descriptor_pool.Default()
    return [f"/{service}/{method.name}" for service in services for method in pool.FindServiceByName(service).methods]


def _why_not(listen: str) -> str:
    """Why an address cannot be listened on, in words: grpc does not say."""
    host, port = split_address(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return "the port is taken" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
    return "it was taken a moment ago"
