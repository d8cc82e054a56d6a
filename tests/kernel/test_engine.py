"""The kernel layer on real processes: every call of a marked function is counted, once, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.namespaces import UNSHARE
from support.sites import CONDITIONS, marked_plan

from coral.events.record import RecordKind
from coral.kernel.engine import Attachment, Engine
from coral.kernel.layout import ControlKind
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from coral.model.site import FunctionPlan, Method

pytestmark = pytest.mark.kernel

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
long probed(long);
long other(long x) { return x + 1; }
static void repeat(long calls) { for (long i = 0; i < calls; i++) probed(i); }
int main(int count, char **words) {
    char byte;
    puts("ready"); fflush(stdout);
    if (read(0, &byte, 1) != 1) return 1;
    for (int i = 1; i + 1 < count; i += 2) {
        long number = atol(words[i + 1]);
        if (!strcmp(words[i], "call")) repeat(number);
        if (!strcmp(words[i], "fork")) for (long k = 0; k < number; k++) {
            pid_t child = fork();
            if (!child) { repeat(3); _exit(5); }
            waitpid(child, 0, 0);
        }
        if (!strcmp(words[i], "exec")) { repeat(number); execl(words[0], words[0], "call", "1", (char *)0); }
    }
    return 7;
}
"""
PLAIN = """
    .globl probed, site_entry, site_return
probed:
site_entry: push %rbp
    mov %rsp, %rbp
    lea 1(%rdi), %rax
    pop %rbp
site_return: ret
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One engine for all tests, as in an agent."""
    opened = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    yield opened
    opened.close()


def built(folder: Path, assembly: str) -> Path:
    """The program with its probed function in assembly."""
    (folder / "main.c").write_text(PROGRAM)
    (folder / "probed.s").write_text(f'    .text\n{assembly}\n    .section .note.GNU-stack,"",@progbits\n')
    subprocess.run(["gcc", "-O1", "-o", folder / "program", folder / "main.c", folder / "probed.s"], check=True, cwd=folder)
    return folder / "program"


class Target:
    """The program, waiting for its start."""

    def __init__(self, program: Path, *words: object) -> None:
        self.program = program
        self.process = subprocess.Popen([program, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> None:
        """Starts it."""
        assert self.process.stdin is not None
        self.process.stdin.write("x")
        self.process.stdin.flush()

    def run(self) -> int:
        """Starts it and waits for its exit status."""
        self.go()
        return self.process.wait(60)

    def text(self) -> bytes:
        """Its code as it is in memory now."""
        for line in Path(f"/proc/{self.process.pid}/maps").read_text().splitlines():
            span, permissions, *rest = line.split()
            if "x" in permissions and rest[-1] == str(self.program):
                start, end = (int(part, 16) for part in span.split("-"))
                with Path(f"/proc/{self.process.pid}/mem").open("rb", buffering=0) as memory:
                    memory.seek(start)
                    return memory.read(end - start)
        raise AssertionError("no code")


@contextmanager
def attached(
    engine: Engine,
    target: Target,
    plan: FunctionPlan,
    *,
    config: ProbeConfig | None = None,
    bounds: ProbeFilter | None = None,
) -> Iterator[int]:
    """A slot that is attached to a target."""
    config = config or ProbeConfig()
    slot = engine.acquire_slot(config, bounds or ProbeFilter())
    attachment: Attachment | None = None
    try:
        engine.add_member(slot, target.process.pid)
        attachment = engine.attach(slot, str(target.program), plan, first_site=0, mode=config.mode)
        yield slot
    finally:
        if attachment:
            attachment.detach()
        engine.drain()
        engine.release_slot(slot)


def expected(**counted: int) -> dict[str, int]:
    """All counters, zero unless given."""
    names = (
        "entered", "returned", "no_return", "too_deep", "emitted", "filtered", "sampled_out", "rate_limited", "ring_lost",
        "orphan_returns", "unseen",
    )  # fmt: skip
    return dict.fromkeys(names, 0) | counted


def test_every_call_is_a_record(engine: Engine, tmp_path: Path) -> None:
    """As many records as calls, each of the process that made it, with a duration and a time after the start."""
    target = Target(built(tmp_path, PLAIN), "call", 5000)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with attached(engine, target, marked_plan(target.program)) as slot:
        assert target.run() == 7
        records = engine.drain().events
        assert engine.counters(slot) == expected(entered=5000, returned=5000, emitted=5000)
    assert len(records) == 5000
    assert set(records["pid"]) == {target.process.pid}
    assert set(records["tid"]) == {target.process.pid}
    assert set(records["slot"]) == {slot}
    assert set(records["kind"]) == {RecordKind.RETURN}
    assert (records["duration_ns"] >= 1).all()
    assert (np.diff(records["boot_ns"].astype("i8")) >= 0).all()
    assert before < records["boot_ns"][0] < records["boot_ns"][-1] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_forked_child_counts_from_its_first_call(engine: Engine, tmp_path: Path) -> None:
    """Children forked after the attach are members before they run; each fork and each exit is reported with its status."""
    target = Target(built(tmp_path, PLAIN), "fork", 40)
    with attached(engine, target, marked_plan(target.program)) as slot:
        assert target.run() == 7
        drained = engine.drain()
        assert engine.counters(slot) == expected(entered=120, returned=120, emitted=120)
    control = drained.control[drained.control["kind"] != ControlKind.EXEC]
    forks, exits = (control[control["kind"] == kind] for kind in (ControlKind.FORK, ControlKind.EXIT))
    assert len(forks) == 40
    assert set(forks["parent"]) == {target.process.pid}
    assert sorted(forks["pid"]) == sorted(set(drained.events["pid"]))
    assert len(set(forks["instance"])) == 40
    statuses = dict(zip(exits["pid"].tolist(), exits["status"].tolist(), strict=True))
    assert statuses == {**dict.fromkeys(forks["pid"].tolist(), 5 << 8), target.process.pid: 7 << 8}


def test_a_program_that_execs_is_let_go(engine: Engine, tmp_path: Path) -> None:
    """After exec the process is no member, so calls of what runs then are not counted."""
    target = Target(built(tmp_path, PLAIN), "exec", 10)
    with attached(engine, target, marked_plan(target.program)) as slot:
        target.go()
        assert target.process.stdout is not None
        assert target.process.stdout.readline() == "ready\n"
        assert engine.member(slot, target.process.pid) is None
        target.go()
        target.process.wait(10)
        drained = engine.drain()
        assert engine.counters(slot) == expected(entered=10, returned=10, emitted=10)
    assert target.process.pid in drained.control[drained.control["kind"] == ControlKind.EXEC]["pid"]


def test_other_processes_of_the_file_are_not_counted(engine: Engine, tmp_path: Path) -> None:
    """A process that maps the same file but is no member runs through the breakpoints uncounted."""
    program = built(tmp_path, PLAIN)
    member, stranger = Target(program, "call", 10), Target(program, "call", 1000)
    with attached(engine, member, marked_plan(program)) as slot:
        assert stranger.run() == 7
        assert member.run() == 7
        assert engine.counters(slot) == expected(entered=10, returned=10, emitted=10)
        assert set(engine.drain().events["pid"]) == {member.process.pid}


@pytest.mark.parametrize(
    ("config", "bounds", "counted"),
    [
        (ProbeConfig(sample_rate=4), ProbeFilter(), {"emitted": 250, "sampled_out": 750}),
        (ProbeConfig(max_events=30), ProbeFilter(), {"emitted": 30, "filtered": 970}),
        (ProbeConfig(), ProbeFilter(min_duration_ns=10**9), {"filtered": 1000}),
        (ProbeConfig(), ProbeFilter(max_duration_ns=1), {"filtered": 1000}),
        (ProbeConfig(), ProbeFilter(max_events_per_second=1), {"emitted": 1, "rate_limited": 999}),
    ],
)
def test_what_is_kept_back_is_counted(
    engine: Engine, tmp_path: Path, config: ProbeConfig, bounds: ProbeFilter, counted: dict[str, int]
) -> None:
    """Sampling, max_events, duration bounds and the rate limit each count what they keep back, and the sum is the calls."""
    target = Target(built(tmp_path, PLAIN), "call", 1000)
    with attached(engine, target, marked_plan(target.program), config=config, bounds=bounds) as slot:
        assert target.run() == 7
        assert engine.counters(slot) == expected(entered=1000, returned=1000, **counted)
        assert len(engine.drain().events) == counted.get("emitted", 0)


def test_a_full_ring_is_counted(engine: Engine, tmp_path: Path) -> None:
    """Records that find the ring full are counted as lost, to the last call."""
    target = Target(built(tmp_path, PLAIN), "call", 40_000)
    with attached(engine, target, marked_plan(target.program)) as slot:
        assert target.run() == 7
        counters = engine.counters(slot)
        kept = len(engine.drain().events)
    assert counters == expected(entered=40_000, returned=40_000, emitted=kept, ring_lost=40_000 - kept)
    assert 0 < kept < 40_000


def test_mode_count_probes_entries_alone(engine: Engine, tmp_path: Path) -> None:
    """In mode count every call is unseen and filtered, and no record is made."""
    target = Target(built(tmp_path, PLAIN), "call", 500)
    with attached(engine, target, marked_plan(target.program), config=ProbeConfig(mode=Mode.COUNT)) as slot:
        assert target.run() == 7
        assert engine.counters(slot) == expected(entered=500, unseen=500, filtered=500)
        assert len(engine.drain().events) == 0


def test_entry_only_reports_entries(engine: Engine, tmp_path: Path) -> None:
    """A function whose returns cannot be seen reports entries, which are unseen calls."""
    target = Target(built(tmp_path, PLAIN), "call", 500)
    plan = marked_plan(target.program, method=Method.ENTRY_ONLY)
    entry_plan = FunctionPlan(
        name=plan.name, language="c", pairing=plan.pairing, method=plan.method, reason="test", sites=plan.entries
    )
    with attached(engine, target, entry_plan) as slot:
        assert target.run() == 7
        assert engine.counters(slot) == expected(entered=500, unseen=500, emitted=500)
        assert set(engine.drain().events["kind"]) == {RecordKind.ENTRY}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_conditional_tail_jump_counts_when_taken(engine: Engine, tmp_path: Path, condition: str) -> None:
    """For each of the 16 conditions of x86 a call ends at the jump exactly when the jump is taken."""
    target = Target(
        built(
            tmp_path,
            f"""
    .globl probed, site_entry, site_return, site_tail_j{condition}
probed:
site_entry: push %rbp
    pop %rbp
    mov %rdi, %rax
    and $7, %eax
    movabs $0x00ff0380007f0100, %rdx
    lea (,%rax,8), %rcx
    shr %cl, %rdx
    movabs $0x0001ff7f80007f01, %rsi
    shr %cl, %rsi
    cmp %sil, %dl
site_tail_j{condition}: j{condition} other
site_return: ret
""",
        ),
        "call",
        800,
    )
    with attached(engine, target, marked_plan(target.program)) as slot:
        assert target.run() == 7
        records = engine.drain().events
        assert engine.counters(slot) == expected(entered=800, returned=800, emitted=800)
    left = 0
    for index in range(8):
        first, second = 0x00FF0380007F0100 >> 8 * index & 0xFF, 0x0001FF7F80007F01 >> 8 * index & 0xFF
        left += 100 * _holds(condition, first, second)
    assert int((records["kind"] == RecordKind.TAIL).sum()) == left


def _holds(condition: str, first: int, second: int) -> bool:
    """Whether ``cmp second, first`` on bytes sets the condition (Intel SDM: CMP, appendix B)."""
    signed = [value - 256 if value > 127 else value for value in (first, second)]
    result = (first - second) & 0xFF
    flags = {
        "o": not -128 <= signed[0] - signed[1] <= 127,
        "b": first < second,
        "e": first == second,
        "be": first <= second,
        "s": result > 127,
        "p": result.bit_count() % 2 == 0,
        "l": signed[0] < signed[1],
        "le": signed[0] <= signed[1],
    }
    opposite = {"no": "o", "ae": "b", "ne": "e", "a": "be", "ns": "s", "np": "p", "ge": "l", "g": "le"}
    return flags[condition] if condition in flags else not flags[opposite[condition]]


def test_an_entry_at_an_occupied_place_proves_no_return(engine: Engine, tmp_path: Path) -> None:
    """A call that leaves by no exit that is probed is counted as gone once its place is entered anew; the last is open."""
    target = Target(
        built(
            tmp_path,
            """
    .globl probed, site_entry, site_return
probed:
site_entry: push %rbp
    pop %rbp
    test $1, %dil
    jne 1f
site_return: ret
1:  ret
""",
        ),
        "call",
        100,
    )
    with attached(engine, target, marked_plan(target.program)) as slot:
        assert target.run() == 7
        assert engine.counters(slot) == expected(entered=100, returned=50, no_return=49, emitted=50)
        keys, values = engine.open_calls(slot)
        assert len(keys) == 1
        assert set(values["pid"]) == {target.process.pid}
        assert engine.forget_calls(slot, lambda keys, values: np.ones(len(keys), bool)) == 1


def test_calls_beyond_the_table_are_too_deep(engine: Engine, tmp_path: Path) -> None:
    """Open calls that find no room are counted as too deep, and their returns as orphans."""
    target = Target(
        built(
            tmp_path,
            """
    .globl probed, site_entry, site_return
probed:
site_entry: push %rbp
    mov %rsp, %rbp
    cmp $6000, %rdi
    jae 1f
    inc %rdi
    call probed
1:  pop %rbp
site_return: ret
""",
        ),
        "call",
        1,
    )
    with attached(engine, target, marked_plan(target.program)) as slot:
        assert target.run() == 7
        counters = engine.counters(slot)
    assert counters["entered"] == 6001
    assert counters["too_deep"] == counters["orphan_returns"] > 0
    assert counters["returned"] + counters["too_deep"] == 6001


def test_returns_after_the_end_are_no_orphans(engine: Engine, tmp_path: Path) -> None:
    """A return without an entry is an orphan, until the detach begins: then it is of a call that the probe never covered."""
    never_entered = """
    .globl probed, site_entry, site_return
probed:
    jmp site_return
site_entry: push %rbp
    pop %rbp
site_return: ret
"""
    target = Target(built(tmp_path, never_entered), "call", 100)
    other = Target(target.program, "call", 100)
    with attached(engine, target, marked_plan(target.program)) as slot:
        engine.add_member(slot, other.process.pid)
        assert target.run() == 7
        assert engine.counters(slot) == expected(orphan_returns=100)
        engine.begin_detach(slot)
        assert other.run() == 7
        assert engine.counters(slot) == expected(orphan_returns=100)


def test_detach_restores_the_text(engine: Engine, tmp_path: Path) -> None:
    """While attached the code has breakpoints; after the detach it is, byte for byte, what it was."""
    target = Target(built(tmp_path, PLAIN), "call", 1)
    before = target.text()
    with attached(engine, target, marked_plan(target.program)):
        during = target.text()
        changed = [(old, new) for old, new in zip(before, during, strict=True) if old != new]
        assert changed == [(0x55, 0xCC), (0xC3, 0xCC)]
    assert target.text() == before
    assert target.run() == 7


def test_a_killed_owner_leaves_nothing(tmp_path: Path) -> None:
    """When the process that attached is killed, the kernel puts the bytes back, and the program goes on."""
    target = Target(built(tmp_path, PLAIN), "call", 100)
    before = target.text()
    script = """
import sys, time
from pathlib import Path
from coral.kernel.engine import Engine
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from support.sites import marked_plan
engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
slot = engine.acquire_slot(ProbeConfig(), ProbeFilter())
engine.add_member(slot, int(sys.argv[1]))
engine.attach(slot, sys.argv[2], marked_plan(Path(sys.argv[2])), first_site=0, mode=Mode.EVENTS)
print("attached", flush=True)
time.sleep(60)
"""
    tests = Path(__file__).parent.parent
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(target.process.pid), str(target.program)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tests)},
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "attached\n"
    assert target.text() != before
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    deadline = time.monotonic() + 10
    while target.text() != before:
        assert time.monotonic() < deadline, "the breakpoints are still there"
        time.sleep(0.01)
    assert target.run() == 7


def test_two_collectors_share_a_function(engine: Engine, tmp_path: Path) -> None:
    """Two slots on the same sites each count every call."""
    target = Target(built(tmp_path, PLAIN), "call", 300)
    plan = marked_plan(target.program)
    with attached(engine, target, plan) as first, attached(engine, target, plan) as second:
        assert target.run() == 7
        events = engine.drain().events
        for slot in (first, second):
            assert engine.counters(slot) == expected(entered=300, returned=300, emitted=300)
            assert int((events["slot"] == slot).sum()) == 300


def test_a_slot_is_empty_when_it_is_given_away(engine: Engine) -> None:
    """While one collector's members and calls are being forgotten, the next one cannot have its slot, and lose its own."""
    slot = engine.acquire_slot(ProbeConfig(), ProbeFilter())
    pids = range(100_000, 108_000)
    for pid in pids:
        engine.add_member(slot, pid)
    releasing = threading.Thread(target=engine.release_slot, args=(slot,))
    releasing.start()
    taken = []
    while slot not in taken:
        if len(taken) > 32:
            engine.release_slot(taken.pop(0))
        taken.append(engine.acquire_slot(ProbeConfig(), ProbeFilter()))
    left = [pid for pid in pids if engine.member(slot, pid) is not None]
    releasing.join()
    assert left == []
    for each in taken:
        engine.release_slot(each)


def test_a_pid_namespace_of_its_own_is_refused() -> None:
    """Where the agent and the kernel know processes by different numbers, it says so instead of counting nothing."""
    script = "from coral.kernel.engine import Engine; Engine(ring_bytes=1 << 20, max_open_calls=4096)"
    inside = [*UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", script]
    outcome = subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 1
    assert "FailedPrecondition: The agent runs in a pid namespace of its own" in outcome.stderr


def test_a_process_counts_in_one_image(engine: Engine, tmp_path: Path) -> None:
    """Of two attachments at one instruction, for two images of a collector, that of the process's own image counts."""
    target = Target(built(tmp_path, PLAIN), "call", 50)
    plan = marked_plan(target.program)
    slot = engine.acquire_slot(ProbeConfig(), ProbeFilter())
    engine.add_member(slot, target.process.pid, group=1)
    attachments = [
        engine.attach(slot, str(target.program), plan, first_site=0, mode=Mode.EVENTS, group=group) for group in (0, 1)
    ]
    assert target.run() == 7
    counters = engine.counters(slot)
    for attachment in attachments:
        attachment.detach()
    engine.release_slot(slot)
    assert {name: value for name, value in counters.items() if value} == {"entered": 50, "returned": 50, "emitted": 50}
