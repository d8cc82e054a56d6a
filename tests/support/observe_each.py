"""One program watched through a session for each of many functions at once, against the counters that it keeps of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import rpc
from support.observe import counted, every_call_stored, ledger_faults
from support.stack import Stack
from support.target import Target, running
from support.text import changed_text

from coral.wire._generated.colony.v1 import debug_pb2

_FINAL_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What became of one session.

    Attributes:
        session: As the colony has it after the end: a ``DebugSession`` message.
        by_pid: How many events each process has.
    """

    session: Any
    by_pid: dict[int, int]

    @property
    def ledger(self) -> dict[str, Any]:
        """Of the session, by the names of its fields."""
        message = self.session.ledger
        whole = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
        whole["unknown_intervals"] = list(message.unknown_intervals)
        return whole


def assert_as_counted(
    stack: Stack, program: Path, functions: Mapping[str, str], *options: str | int, exit_code: int = 0
) -> tuple[dict[str, Watched], dict[str, Any]]:
    """Runs a program alone, and again with its functions probed: it prints and ends the same, and all calls are exact.

    Args:
        stack: A running colony and agent.
        program: It prints ``"COUNTER":[calls, returns]`` for each of its functions when all of its calls are over.
        functions: What to probe, by the name of its counter.
        options: Of the program's command line.
        exit_code: What the program is to end with.

    Returns:
        What was seen, by the name of the counter; and what the program printed.
    """
    with running(program, *options) as alone:
        expected = alone.run()
        assert alone.finish() == exit_code
    assert expected["wrong"] == 0
    with running(program, *options) as target:
        watched, truth = _observe(stack, target, functions)
        assert target.finish() == exit_code
    assert {**truth, "timings": ()} == {**expected, "timings": ()}
    faults = []
    for counter in functions:
        ledger = watched[counter].ledger
        calls, returned = truth[counter]
        want = every_call_stored(calls, returned) | ({"no_return": calls - returned} if calls > returned else {})
        if counted(ledger) != want or ledger_faults(ledger):
            faults.append(f"{counter} ({functions[counter]}): {counted(ledger)} is not {want}; {ledger_faults(ledger)}")
        elif sum(watched[counter].by_pid.values()) != returned:
            faults.append(f"{counter}: {watched[counter].by_pid} are not {returned} events")
    assert not faults, "\n".join(faults)
    return watched, truth


def _observe(stack: Stack, target: Target, functions: Mapping[str, str]) -> tuple[dict[str, Watched], dict[str, Any]]:
    """Attaches to all functions, lets the program work, and detaches from them."""
    ids: dict[str, str] = {}
    try:
        for counter, function in functions.items():
            ids[counter] = rpc.attach(stack.colony, target.service, function).session_id
        offsets = set()
        for counter, session_id in ids.items():
            (session,) = rpc.sessions(stack.colony, session_id=session_id)
            (instance,) = session.collectors[0].instances
            problem = f"{functions[counter]}: {session.reason} {instance.status} {instance.method} {instance.reason}"
            assert (session.status, instance.status, instance.method) == ("active", "attached", "ret_sites"), problem
            offsets.update(site.offset for site in instance.sites)
        assert {int(change.rpartition("+")[2], 16) for change in changed_text(target.pid)} == offsets
        truth = target.run()
    finally:
        for session_id in ids.values():
            rpc.colony(stack.colony, "DetachUprobe", debug_pb2.DetachUprobeRequest(session_id=session_id))
    finals = {counter: _final(stack, session_id) for counter, session_id in ids.items()}
    assert changed_text(target.pid) == []
    rows = stack.cli.query("SELECT collector_id, pid, count(*) AS events FROM uprobe_events GROUP BY collector_id, pid")
    watched = {}
    for counter, session in finals.items():
        collectors = {collector.collector_id for collector in session.collectors}
        by_pid = {row["pid"]: row["events"] for row in rows if row["collector_id"] in collectors}
        watched[counter] = Watched(session=session, by_pid=by_pid)
    return watched, truth


def _final(stack: Stack, session_id: str) -> Any:
    """The session once its last ledger has arrived."""
    deadline = time.monotonic() + _FINAL_S
    while True:
        (session,) = rpc.sessions(stack.colony, session_id=session_id)
        if session.status != "active" and session.ledger.HasField("balanced"):
            return session
        if time.monotonic() > deadline:
            raise TimeoutError(f"the session has no final ledger after {_FINAL_S} s: {session}")
        time.sleep(0.02)
