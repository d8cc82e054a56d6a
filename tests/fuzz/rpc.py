"""Every RPC of every server with what nobody meant to send, for some time: is each answered, and does each server live?"""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coral.trust.authority import KeyPair
from fuzz import frames, messages
from fuzz.campaign import Report
from fuzz.hostile_text import text
from fuzz.plant import Plant, Server, plant

ANSWER_S = 40.0
"""What an answer may take: an attach may wait for a slot, and for an agent."""
GROWTH_BYTES = 768 << 20
"""What a daemon may hold beyond what it held at first."""
_STREAM_S = 0.5
_AT_ONCE = 12
_LOOK_S = 2.0
_HEALTH_S = 10.0
_DEFECTS = ("INTERNAL", "UNKNOWN", "DATA_LOSS")
_KEYS = (
    "coral-actor",
    "coral-colony",
    "authorization",
    "x",
    "coral-command-bin",
    "grpc-x-bin",
    "x-bin",
    "te-x",
    "user-agent-x",
)


def run(*, seed: int, seconds: float) -> Report:
    """Starts the daemons, fuzzes all of them for the time, and says what came of it."""
    with tempfile.TemporaryDirectory(prefix="coral-fuzz-") as folder, plant(Path(folder)) as target:
        return asyncio.run(fuzz(target, seed=seed, seconds=seconds))


async def fuzz(target: Plant, *, seed: int, seconds: float) -> Report:
    """Fuzzes daemons that run."""
    report = Report(seed=seed, clock="s")
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # servers close on whoever speaks no HTTP/2: that is no news
    start = time.monotonic()
    before = target.memory_bytes()
    known: list[str] = [target.service, target.service, "work", "work", "agent-1"]
    numbers = iter(range(1 << 62))
    stop = start + seconds
    async with asyncio.TaskGroup() as group:
        guns = [Gun(server, known) for server in target.servers]
        for gun in guns:
            group.create_task(gun.open())
        await asyncio.sleep(0)

        async def shoot() -> None:
            while time.monotonic() < stop:
                number = next(numbers)
                randomness = random.Random(f"{seed}:{number}")
                await randomness.choice(guns).case(number, randomness, report)

        workers = [group.create_task(shoot()) for _ in range(_AT_ONCE)]
        group.create_task(_watch(target, guns, workers, report))
    for gun in guns:
        await gun.close()
    for name, held in target.memory_bytes().items():
        report.memory_bytes = max(report.memory_bytes, held)
        if held - before[name] > GROWTH_BYTES:
            report.defects.append(f"the {name} grew from {before[name] >> 20} to {held >> 20} MiB")
    report.defects += [f"in a log: {line}" for line in target.complaints()]
    report.duration_s = time.monotonic() - start
    return report


async def _watch(target: Plant, guns: Sequence[Gun], workers: Sequence[asyncio.Task[None]], report: Report) -> None:
    """Sees that every server lives and answers, while it is shot at and after it."""
    while True:
        over = all(worker.done() for worker in workers)
        for name in target.dead():
            report.defects.append(f"the {name} has ended")
        for gun in guns:
            taken_s = await gun.health()
            if taken_s is None:
                report.defects.append(f"the {gun.server.name} does not answer health checks")
        if over or len(report.defects) > 50:
            return
        await asyncio.wait(workers, timeout=_LOOK_S)


class Gun:
    """Shoots at one server.

    Args:
        server: Which.
        known: Texts that mean something; what answers hold is added.
    """

    def __init__(self, server: Server, known: list[str]) -> None:
        self.server = server
        self._known = known
        self._methods = messages.methods(server.package)
        self._good = messages.good(known[0])
        self._channels: list[grpc.aio.Channel] = []

    async def open(self) -> None:
        """Connects, with each certificate that may be shown."""
        self._channels = [self._connect(pair) for pair in self.server.pairs]

    async def close(self) -> None:
        """Disconnects."""
        for channel in self._channels:
            await channel.close()

    def _connect(self, pair: KeyPair | None) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [
            ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 32 << 20)
        ]  # fmt: skip
        if self.server.ca_pem is None:
            return grpc.aio.insecure_channel(self.server.address, options=options)
        if self.server.server_name:
            options.append(("grpc.ssl_target_name_override", self.server.server_name))
        credentials = grpc.ssl_channel_credentials(self.server.ca_pem, pair and pair.key, pair and pair.certificate)
        return grpc.aio.secure_channel(self.server.address, credentials, options=options)

    async def health(self) -> float | None:
        """How long a health check over a new connection takes; None if there is no answer."""
        begun = time.monotonic()
        async with self._connect(self.server.pairs[0]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            try:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_S)
            except grpc.aio.AioRpcError:
                return None
        return time.monotonic() - begun

    async def case(self, number: int, randomness: random.Random, report: Report) -> None:
        """One case: a request, or a connection."""
        report.cases += 1
        if randomness.random() < 0.05:
            try:
                outcome = await frames.case(randomness, self.server.address, [method.path for method in self._methods])
            except TimeoutError:
                outcome = "connection: not read"
            except OSError as error:
                outcome = f"connection: {type(error).__name__}"
            report.outcomes[f"{self.server.name}, {outcome}"] += 1
            return
        method = randomness.choice(self._methods)
        path = method.path
        if randomness.random() < 0.02:
            path = randomness.choice((path + "x", "/" + text(randomness).encode("ascii", "ignore").decode() + "/x", "/a/b/c"))
        request = messages.request(randomness, method, self._known, self._good)
        begun = time.monotonic()
        outcome, said = await self._call(
            randomness.choice(self._channels), path, method.streams, request, self._metadata(randomness)
        )
        spent_s = time.monotonic() - begun
        name = path.rpartition("/")[2] if path == method.path else "no such method"
        report.outcomes[f"{self.server.name}, {name}: {outcome}"] += 1
        if spent_s > report.worst_s:
            report.worst_s, report.worst = spent_s, f"case {number}, {self.server.name}, {name}"
        if outcome in _DEFECTS or outcome == "no answer":
            report.defects.append(f"case {number}, {self.server.name}, {path} with {request[:60]!r}: {outcome}: {said[:300]}")

    def _metadata(self, randomness: random.Random) -> tuple[tuple[str, str | bytes], ...]:
        found: list[tuple[str, str | bytes]] = []
        token = self.server.token
        if token:
            choice = randomness.random()
            if choice < 0.6:
                found.append(("authorization", f"Bearer {token}"))
            elif choice < 0.8:
                wrong = (f"bearer {token}", f"Basic {token}", token, f"Bearer {token[:-1]}", "Bearer ", f"Bearer {token} x")
                found.append(("authorization", randomness.choice(wrong)))
        if randomness.random() < 0.3:
            for _ in range(randomness.choice((1, 1, 2, 100))):
                key = randomness.choice(_KEYS)
                if key.endswith("-bin"):
                    found.append((key, randomness.randbytes(randomness.choice((0, 1, 300, 9000)))))
                else:
                    value = text(randomness).encode("ascii", "backslashreplace").decode()
                    size = randomness.choice((10, 300, 9000, 30_000))
                    found.append((key, "".join(one if " " <= one <= "~" else "?" for one in value)[:size].strip()))
        return tuple(found)

    async def _call(
        self,
        channel: grpc.aio.Channel,
        path: str,
        streams: bool,
        request: bytes,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> tuple[str, str]:
        """Makes a call; returns its outcome, and what the server said."""
        try:
            if streams:
                return await self._stream(channel, path, request, metadata)
            call: Any = channel.unary_unary(path)
            answer = await call(request, metadata=metadata, timeout=ANSWER_S)
            self._learn(answer)
        except grpc.aio.AioRpcError as error:
            return _outcome(error)
        except (ValueError, TypeError) as error:  # the client's own library refuses to send it
            return "not sent", str(error)
        return "OK", ""

    async def _stream(self, channel: grpc.aio.Channel, path: str, request: bytes, metadata: Any) -> tuple[str, str]:
        call: Any = channel.unary_stream(path)(request, metadata=metadata, timeout=ANSWER_S)
        try:
            async with asyncio.timeout(_STREAM_S):
                async for answer in call:
                    self._learn(answer)
        except TimeoutError:
            return "followed", ""
        finally:
            call.cancel()
        return "OK", ""

    def _learn(self, answer: bytes) -> None:
        """Keeps an id that an answer begins with: sessions and collectors of which more can be asked."""
        if len(answer) > 28 and answer[:2] == b"\x0a\x1a" and len(self._known) < 500:
            self._known.append(answer[2:28].decode("ascii", "ignore"))


def _outcome(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    code, said = error.code().name, error.details() or ""
    from_server = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
    if code == "DEADLINE_EXCEEDED" and not from_server:
        return "no answer", said
    return code, said
