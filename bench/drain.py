"""The agent's way from the ring to what it sends, alone: how many records a second does one core take?

The ring is memory with the kernel's layout; everything behind it is the agent's own: reading, parting by collector,
numbering, the window, Arrow, the IPC stream of a batch. In CPU time of the thread, so that what else the machine does is not
in it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from support.memory_ring import MemoryRing

from coral.agent.gather import BATCH_EVENTS, FULL_EVENTS
from coral.agent.window import Window
from coral.events.batch import Origin, encode, to_batch
from coral.events.record import RECORD, Array, by_slot, number

GOAL = 3_000_000
RING_BYTES = 16 << 20
_STAGES = ("read", "part", "number", "window", "arrow", "ipc")


@dataclass(slots=True)
class Drained:
    """What one run did.

    Attributes:
        records: How many were put into the ring.
        sent: How many came out in batches.
        sent_bytes: Of the batches.
        last: The newest sequence of each collector.
        stage_s: CPU seconds of each stage.
    """

    records: int
    sent: int
    sent_bytes: int
    last: list[int]
    stage_s: dict[str, float]

    @property
    def rate(self) -> float:
        """Records a second of one core."""
        return self.records / sum(self.stage_s.values())


def run(*, times: int) -> bool:
    """Prints the figures; whether the goal was reached with one collector and with twenty mixed.

    Args:
        times: How often a full ring is read in each round.
    """
    print(f"drain: ring of {RING_BYTES >> 20} MiB to Arrow IPC batches, CPU time of one thread, median of 5 rounds")
    good = True
    for collectors in (1, 20):
        rounds = sorted((drain(collectors, times) for _ in range(5)), key=lambda done: done.rate)
        middle = rounds[2]
        rate = statistics.median(done.rate for done in rounds)
        good = good and rate >= GOAL and all(done.sent == done.records for done in rounds)
        print(
            f"  {collectors:2} collectors  {rate / 1e6:.1f} M records/s "
            f"({rounds[0].rate / 1e6:.1f} to {rounds[-1].rate / 1e6:.1f}), "
            f"all of {middle.records:,} sent, {middle.sent_bytes / middle.sent:.0f} bytes each"
        )
        shares = ", ".join(f"{name} {middle.stage_s[name] / middle.records * 1e9:.0f}" for name in _STAGES)
        print(f"                 ns a record: {shares}")
    return good


def drain(collectors: int, times: int) -> Drained:
    """Reads a full ring so many times, and makes the batches of all collectors, as the agent does while it is busy."""
    ring = MemoryRing(RING_BYTES)
    written = ring.write(_records(ring.room, collectors))
    windows = [Window() for _ in range(collectors)]
    sent = [0] * collectors
    origins = [
        Origin(collector_id=f"01K{slot:023}", agent_id="agent-1", service_name="checkout", function_name="main.Pay")
        for slot in range(collectors)
    ]
    done = Drained(0, 0, 0, [], dict.fromkeys(_STAGES, 0.0))

    def spent(stage: str, since: float) -> float:
        now = time.thread_time()
        done.stage_s[stage] += now - since
        return now

    def send(slot: int) -> None:
        at = time.thread_time()
        events = windows[slot].after(sent[slot], BATCH_EVENTS)
        at = spent("window", at)
        table: pa.RecordBatch = to_batch(events, origins[slot])
        at = spent("arrow", at)
        done.sent_bytes += len(encode(table))
        spent("ipc", at)
        done.sent += len(events)
        sent[slot] += len(events)
        windows[slot].shrink(windows[slot].last_sequence - sent[slot])

    for _ in range(times):
        ring.rewind(written)
        done.records += written
        while True:
            at = time.thread_time()
            records = ring.reader.drain()
            at = spent("read", at)
            if not len(records):
                break
            parts = by_slot(records)
            at = spent("part", at)
            for slot, part in parts:
                at = time.thread_time()
                events = number(part, first_sequence=windows[slot].last_sequence + 1, boot_to_wall_ns=1_000)
                at = spent("number", at)
                windows[slot].append(events)
                at = spent("window", at)
            for slot in range(collectors):
                if windows[slot].last_sequence - sent[slot] >= FULL_EVENTS:
                    send(slot)
    for slot in range(collectors):
        while windows[slot].last_sequence > sent[slot]:
            send(slot)
    done.last = [window.last_sequence for window in windows]
    ring.close()
    return done


def _records(count: int, collectors: int) -> Array:
    """Records of calls a microsecond apart, of random collectors, with durations as services have them."""
    randomness = np.random.default_rng(1)
    records = np.zeros(count, RECORD)
    records["boot_ns"] = np.arange(count, dtype="u8") * 1_000
    records["duration_ns"] = randomness.lognormal(11, 1, count)
    records["slot"] = randomness.integers(0, collectors, count)
    records["pid"], records["tid"] = 4411, randomness.integers(4411, 4475, count)
    return records
