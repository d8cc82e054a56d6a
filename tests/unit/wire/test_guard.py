"""The door of a server: what it asks of whom, in which order, and that nothing gets past it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest

from coral.model.errors import CoralError, Internal, InvalidArgument, PermissionDenied, Unauthenticated
from coral.model.principal import Kind, Principal, Role, current_principal
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc
from coral.wire.errors import from_rpc
from coral.wire.guard import Call, address_of, local_principal
from coral.wire.server import Server
from coral.wire.streams import while_valid

SERVICE = "coral.mesh.v1.DebugService"
STOP = f"/{SERVICE}/StopUprobeCollector"
ANN = Principal(name="ann", kind=Kind.USER, roles=(Role.OPERATOR,), address="127.0.0.1:1", credential_id="c1")


class Servicer(ebpf_pb2_grpc.DebugServiceServicer):
    """Says whom it serves."""

    async def StopUprobeCollector(self, request: Any, context: Any) -> Any:
        """In a field of its answer."""
        return ebpf_pb2.StopUprobeCollectorResponse(success=True, error=current_principal().name)

    async def StreamUprobeEvents(self, request: Any, context: Any) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
        """Once, then waits for ever."""
        yield ebpf_pb2.UprobeEventBatch(collector_id=current_principal().name)
        await asyncio.Event().wait()


class Book:
    """A guard that notes what it is asked, and refuses what it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuse: dict[str, CoralError] = {}

    def _ask(self, step: str) -> None:
        self.asked.append(step)
        if step in self.refuse:
            raise self.refuse[step]

    def check_methods(self, methods: Sequence[str]) -> None:
        self._ask("check")
        assert STOP in methods

    async def authenticate(self, call: Call) -> Principal:
        self._ask("authenticate")
        return ANN

    def serving(self, principal: Principal, call: Call) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def held() -> AsyncIterator[None]:
            self._ask("enter")
            try:
                yield
            finally:
                self.asked.append("leave")

        return held()

    async def authorise(self, principal: Principal, call: Call, request: Any, raw: bytes) -> None:
        assert type(request).FromString(raw) == request
        self._ask("authorise")

    async def recheck(self, principal: Principal, call: Call) -> None:
        self._ask("recheck")


@asynccontextmanager
async def guarded(book: Book) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server behind a guard."""
    server = Server(book)
    ebpf_pb2_grpc.add_DebugServiceServicer_to_server(Servicer(), server.grpc)
    address = await server.start("127.0.0.1:0", services=[SERVICE], flag="--listen")
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield channel
    finally:
        await server.stop(0)


async def outcome(call: Any) -> str:
    """The answer's text, or the status."""
    try:
        return str((await call).error)
    except grpc.aio.AioRpcError as error:
        return from_rpc(error, peer="The server").code


def stop(channel: grpc.aio.Channel, raw: bytes = b"\x0a\x01x") -> Any:
    """A unary call with these bytes."""
    return channel.unary_unary(STOP, response_deserializer=ebpf_pb2.StopUprobeCollectorResponse.FromString)(raw)


@pytest.mark.parametrize(
    ("refused", "raw", "expected", "asked"),
    [
        ("", b"\x0a\x01x", "ann", ["authenticate", "enter", "authorise", "leave"]),
        ("authenticate", b"\xff\xff", "UNAUTHENTICATED", ["authenticate"]),
        ("enter", b"\xff\xff", "PERMISSION_DENIED", ["authenticate", "enter"]),
        ("", b"\xff\xff", "INVALID_ARGUMENT", ["authenticate", "enter", "leave"]),
        ("authorise", b"\x0a\x01x", "PERMISSION_DENIED", ["authenticate", "enter", "authorise", "leave"]),
    ],
)
def test_the_order_of_questions(refused: str, raw: bytes, expected: str, asked: list[str]) -> None:
    """Who calls is asked before a byte of the request is parsed, what is wanted after, and the first no is the answer."""

    async def scenario() -> tuple[str, list[str]]:
        book = Book()
        if refused:
            book.refuse[refused] = Unauthenticated("Who?") if refused == "authenticate" else PermissionDenied("No.")
        async with guarded(book) as channel:
            return await outcome(stop(channel, raw)), book.asked

    assert asyncio.run(scenario()) == (expected, ["check", *asked])


def test_a_stream_ends_when_its_credential_does() -> None:
    """A stream that says nothing is asked about all the same, and ends with the reason within little more than a second."""

    async def scenario() -> tuple[str, str, float]:
        book = Book()
        loop = asyncio.get_running_loop()
        async with guarded(book) as channel:
            stream = ebpf_pb2_grpc.DebugServiceStub(channel).StreamUprobeEvents(ebpf_pb2.StreamUprobeEventsRequest())
            first = (await stream.read()).collector_id
            book.refuse["recheck"] = Unauthenticated("The token of ann was revoked.")
            since = loop.time()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            took_s = loop.time() - since
            assert book.asked[-2:] == ["recheck", "leave"]
            return first, str(from_rpc(caught.value, peer="x")), took_s

    first, error, took_s = asyncio.run(scenario())
    assert (first, error) == ("ann", "The token of ann was revoked.")
    assert took_s < 3


def test_a_method_without_a_rule_does_not_start() -> None:
    """A server whose guard does not know one of its methods serves nothing."""

    async def scenario() -> None:
        book = Book()
        book.refuse["check"] = Internal("There is no rule.")
        async with guarded(book):
            pass

    with pytest.raises(Internal, match="no rule"):
        asyncio.run(scenario())


def test_what_cannot_be_guarded_does_not_exist() -> None:
    """A handler whose requests are a stream would be reached without a question, so nobody reaches it."""

    async def scenario() -> tuple[str, list[str]]:
        book = Book()
        server = Server(book)
        reached: list[str] = []

        async def swallow(_requests: Any, _context: Any) -> bytes:
            reached.append("handler")
            return b""

        handlers = {"Swallow": grpc.stream_unary_rpc_method_handler(swallow)}
        server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = await server.start("127.0.0.1:0", services=[SERVICE], flag="--listen")
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                return await outcome(channel.stream_unary(f"/{SERVICE}/Swallow")(iter([b"x"]))), reached
        finally:
            await server.stop(0)

    assert asyncio.run(scenario()) == ("UNIMPLEMENTED", [])


def test_a_stream_that_ends_by_itself() -> None:
    """Everything arrives in order, the error at the end too, and the stream is closed whoever ends it."""

    async def scenario() -> tuple[list[int], list[str]]:
        seen: list[int] = []
        closed: list[str] = []

        async def count(upto: int) -> Any:
            try:
                for number in range(upto):
                    yield number
                raise InvalidArgument("Enough.")
            finally:
                closed.append("closed")

        async def fine() -> None:
            return

        with pytest.raises(InvalidArgument, match="Enough"):
            async for number in while_valid(count(3), fine):
                seen.append(number)  # noqa: PERF401  (what came before the error counts)
        abandoned = while_valid(count(3), fine)
        seen.append(await anext(abandoned))
        await abandoned.aclose()
        return seen, closed

    assert asyncio.run(scenario()) == ([0, 1, 2, 0], ["closed", "closed"])


@pytest.mark.parametrize(
    ("metadata", "peer", "name", "address"),
    [
        ((("coral-actor", "ann@laptop"),), "ipv4:127.0.0.1:40000", "ann@laptop", "127.0.0.1:40000"),
        ((), "ipv6:%5B::1%5D:40000", "[::1]:40000", "[::1]:40000"),
        ((), "unix:", "unix:", "unix:"),
        ((("coral-actor", "a\x1b[2Jb"),), "ipv4:1.2.3.4:5", "a\\x1b[2Jb", "1.2.3.4:5"),
    ],
)
def test_who_calls_without_credentials(metadata: Any, peer: str, name: str, address: str) -> None:
    """A local caller is what it says of itself, else where it comes from; never nobody."""
    call = Call(method=STOP, metadata=metadata, address=address_of(peer))
    assert local_principal(call) == Principal(name=name, kind=Kind.LOCAL, address=address)


def test_a_handler_for_nobody_is_a_defect() -> None:
    """Code that asks whom it serves, outside of any call, is told that there is nobody rather than given a default."""
    with pytest.raises(Internal, match="for nobody"):
        current_principal()


def test_metadata_does_not_show_itself() -> None:
    """A call that ends up in a log or a traceback does not carry its credential there."""
    assert "secret" not in repr(Call(method=STOP, metadata=(("authorization", "Bearer secret"),)))
