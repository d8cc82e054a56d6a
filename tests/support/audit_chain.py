"""Audit logs for tests: chains of records as the colony writes them."""

from __future__ import annotations

from dataclasses import replace

from coral.trust.chain import START, Record, parse, time_text
from coral.trust.checkpoint import ACTION, PRINCIPAL, CheckpointKey

_EMPTY = Record(
    sequence=0, time="", principal="", role="", address="", action="", service_name="", function_name="", session_id="",
    agent_id="", reason="", decision="allow", outcome="ok", previous_hash=START,
)  # fmt: skip


def chain(count: int, key: CheckpointKey, *, every: int = 100, first: int = 1) -> list[bytes]:
    """Lines of ``count`` records from number ``first`` on, each ``every``th a checkpoint."""
    lines, previous = [], START if first == 1 else "ab" * 32
    for number in range(first, first + count):
        record = replace(
            _EMPTY,
            sequence=number,
            time=time_text(1_790_000_000_000_000_000 + number * 1_000_000),
            principal="ann@example.org",
            role="operator",
            address="127.0.0.1:40000",
            action="AttachUprobe",
            service_name="checkout",
            function_name='main.Pay "quoted" \\ ä 漢',
            reason=f"INC-{number}",
            previous_hash=previous,
        )
        if number % every == 0:
            record = replace(record, principal=PRINCIPAL, action=ACTION, service_name="", function_name="")
            record = key.sign(record, first=first, table=number - 1)
        else:
            record = replace(record, hash=record.digest())
        lines.append(record.line())
        previous = record.hash
    return lines


def rewritten(line: bytes, **changes: str | int) -> bytes:
    """A line with some fields changed, and a hash that fits."""
    record = replace(parse(line), **changes)  # type: ignore[arg-type]
    return replace(record, hash=record.digest()).line()
