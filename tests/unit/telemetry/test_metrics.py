"""What a daemon tells Prometheus, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from coral.model.errors import FailedPrecondition
from coral.telemetry.exposed import metrics_served
from coral.telemetry.metrics import counter, gauge, histogram
from coral.telemetry.timings import Timings


async def asked(address: str, request: bytes) -> bytes:
    """What the server answers, until it closes the connection."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def test_metrics_are_read_when_they_are_asked_for() -> None:
    """Each answer has what the daemon keeps at that moment, in a form that Prometheus parses."""
    timings, value = Timings(), [1.0]
    for seconds in (0.0004, 0.02, 99.0):
        timings.note(seconds)

    def families() -> Iterable[Metric]:
        yield gauge("coral_depth", "How deep.", ((), value[0]))
        yield counter("coral_drops", "What was lost.", (("ring_lost",), 3), labels=("reason",))
        yield histogram("coral_commit_seconds", "How long.", (("events",), timings), labels=("file",))

    async def scenario() -> list[bytes]:
        async with metrics_served("127.0.0.1:0", families) as address:
            first = await asked(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            value[0] = 2.0
            return [first, await asked(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")]

    found = []
    for answer in asyncio.run(scenario()):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain")
        samples = [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]
        found.append({(sample.name, *sample.labels.values()): sample.value for sample in samples})
    assert [each["coral_depth",] for each in found] == [1.0, 2.0]
    assert found[1]["coral_drops_total", "ring_lost"] == 3
    buckets = {key[-1]: value for key, value in found[1].items() if key[0] == "coral_commit_seconds_bucket"}
    assert (buckets["0.001"], buckets["0.025"], buckets["10.0"], buckets["+Inf"]) == (1, 2, 2, 3)
    assert found[1]["coral_commit_seconds_sum", "events"] == pytest.approx(99.0204)
    assert found[1]["process_open_fds",] > 2


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b""),
        (b"\x16\x03\x01\x00\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
    ],
)
def test_other_requests_are_refused(request_: bytes, answer: bytes) -> None:
    """What is no request for metrics gets a short answer, or none."""

    async def scenario() -> bytes:
        async with metrics_served("127.0.0.1:0", lambda: ()) as address:
            try:
                return await asked(address, request_)
            except ConnectionResetError:
                return b""

    found = asyncio.run(scenario())
    assert found.partition(b"\r\n")[0] == answer


def test_a_taken_port_is_named() -> None:
    """Two daemons cannot serve metrics on one port; without the setting nothing is served."""

    async def scenario() -> str:
        async with metrics_served("", lambda: ()) as nowhere, metrics_served("127.0.0.1:0", lambda: ()) as address:
            with pytest.raises(FailedPrecondition) as caught:
                async with metrics_served(address, lambda: ()):
                    pass
            assert address in caught.value.message
            return nowhere

    assert asyncio.run(scenario()) == ""
