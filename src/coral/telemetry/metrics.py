"""Serves a daemon's metrics over HTTP, in the form that Prometheus reads.

Everything is read when it is asked for, from what the daemon keeps anyway: nothing is counted twice, and an event costs
nothing for being counted. It is read in the event loop's thread, so that the figures of one answer fit together; a loop that
does not turn does not answer, which tells as much.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from coral.model.errors import FailedPrecondition
from coral.telemetry.calls import Calls
from coral.telemetry.timings import Timings
from coral.telemetry.vitals import Vitals

_REQUEST_S = 5.0
_REQUEST_BYTES = 16 << 10
_CONNECTIONS = 16

_log = structlog.get_logger(__name__)

Families = Callable[[], Iterable[Metric]]


class _Reading(Collector):
    """Families that are made when they are asked for.

    prometheus_client asks a collector once when it is registered, which is when nothing is there yet, unless it describes
    itself.
    """

    def __init__(self, families: Families) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What there is now."""
        return self._families()


class MetricsServer:
    """Answers ``GET /metrics`` without asking who is there: by default on loopback only.

    Args:
        families: What the daemon tells of itself.
    """

    def __init__(self, families: Families) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Reading(families))
        ProcessCollector(registry=self._registry)
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, listen: str) -> str:
        """Serves.

        Args:
            listen: HOST:PORT; port 0 takes a free one.

        Returns:
            HOST:PORT with the port that it has.

        Raises:
            FailedPrecondition: The port cannot be had.
        """
        host, _, port = listen.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._answer, host.strip("[]"), int(port), limit=_REQUEST_BYTES)
        except OSError as error:
            raise FailedPrecondition(
                f"Cannot serve metrics on {listen}: {error.strerror or error}.", hint="Choose another metrics_listen."
            ) from None
        address = self._server.sockets[0].getsockname()
        if not ipaddress.ip_address(address[0]).is_loopback:
            _log.warning("metrics are served without authentication to whoever reaches this address", listen=listen)
        return f"{host}:{address[1]}"

    async def stop(self) -> None:
        """Closes the port."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _CONNECTIONS:
                async with asyncio.timeout(_REQUEST_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._response(head.decode("latin-1")))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks for metrics and goes away, or does not speak HTTP, is owed nothing
        finally:
            self._open -= 1
            writer.close()

    def _response(self, head: str) -> bytes:
        request, *lines = head.splitlines()
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _http("405 Method Not Allowed", "text/plain", b"GET /metrics is what there is.\n")
        if path != "/metrics":
            return _http("404 Not Found", "text/plain", b"Metrics are at /metrics.\n")
        accept = next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("accept:")), "")
        encode, kind = choose_encoder(accept)
        body = encode(self._registry)
        return _http("200 OK", kind, b"" if method == "HEAD" else body)


def _http(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def gauge(name: str, help: str, *samples: tuple[tuple[str, ...], float], labels: tuple[str, ...] = ()) -> Metric:
    """A family of values that go up and down; a sample is its labels' values and its own."""
    family = GaugeMetricFamily(name, help, labels=labels)
    for values, value in samples:
        family.add_metric(list(values), value)
    return family


def counter(name: str, help: str, *samples: tuple[tuple[str, ...], float], labels: tuple[str, ...] = ()) -> Metric:
    """A family of values that only grow."""
    family = CounterMetricFamily(name, help, labels=labels)
    for values, value in samples:
        family.add_metric(list(values), value)
    return family


def histogram(name: str, help: str, *samples: tuple[tuple[str, ...], Timings], labels: tuple[str, ...] = ()) -> Metric:
    """A family of durations in seconds."""
    family = HistogramMetricFamily(name, help, labels=labels)
    for values, timings in samples:
        buckets = [("+Inf" if bound == float("inf") else str(bound), count) for bound, count in timings.cumulative()]
        family.add_metric(list(values), buckets=buckets, sum_value=timings.sum_s)
    return family


def of_every_daemon(calls: Calls, vitals: Vitals) -> Iterable[Metric]:
    """What colony and agent have in common: the RPCs that they answer, and whether their parts work."""
    yield counter(
        "coral_rpc_answered", "RPCs answered, by method and status.",
        *(((method, code), count) for (method, code), count in sorted(calls.answered.items())), labels=("method", "code"),
    )  # fmt: skip
    yield gauge(
        "coral_rpc_open", "RPCs being answered, streams among them.",
        *(((method,), count) for method, count in sorted(calls.open.items())), labels=("method",),
    )  # fmt: skip
    yield histogram(
        "coral_rpc_duration_seconds", "How long unary RPCs took.",
        *(((method,), timings) for method, timings in sorted(calls.timings.items())), labels=("method",),
    )  # fmt: skip
    yield gauge(
        "coral_part_works", "Whether a part of the daemon works: 1, or 0.",
        *(((part,), float(part not in vitals.troubles)) for part in vitals.parts), labels=("part",),
    )  # fmt: skip
    yield gauge("coral_tasks", "Tasks of the event loop: what grows for ever is a leak.", ((), len(asyncio.all_tasks())))
    yield histogram("coral_event_loop_lag_seconds", "How late the event loop is, looked at each second.", ((), vitals.lag))
