"""Programs that somebody else looks into at the same time: debuggers with breakpoints of their own, and other tracers."""

from __future__ import annotations

import grpc
import pytest
from support import rpc
from support.debugger import debugger_of
from support.launch import living
from support.observe import counted, every_call_stored, ledger_faults
from support.servers import wait_until
from support.stack import Stack
from support.text import changed_text

pytestmark = pytest.mark.kernel


def _own_code(pid: int) -> list[str]:
    """What is changed in the program itself; gdb has a breakpoint of its own in the loader."""
    return [change for change in changed_text(pid) if "/ld-linux" not in change]


def test_where_a_debugger_has_a_breakpoint(stack: Stack) -> None:
    """An instruction with a breakpoint of gdb is not probed, and that is said; without it all is well."""
    with living() as target:
        with debugger_of(target.pid) as gdb:
            gdb.do("break *work")
            gdb.do("continue &")
            wait_until("the breakpoint is there", lambda: _own_code(target.pid) != [])
            before = _own_code(target.pid)
            with pytest.raises(grpc.RpcError) as refused:
                rpc.attach(stack.colony, target.service, "work")
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert f"Process {target.pid} is under a debugger" in refused.value.details()
            assert _own_code(target.pid) == before
            target.tell("work 10")
            gdb.until(b"Breakpoint 1, ")
            gdb.do("delete")
            gdb.do("detach")
        assert target.line()["calls"] == 10
        session_id = rpc.attach(stack.colony, target.service, "work").session_id
        assert target.do("work 20")["calls"] == 30
        document = stack.cli.stop(session_id)
        assert changed_text(target.pid) == []
        assert target.exit(6) == 6
    assert counted(document["ledger"]) == every_call_stored(20)


def test_breakpoint_that_a_debugger_set_meanwhile(stack: Stack) -> None:
    """A debugger that took the probe's byte for the program's may put it back after the session: the program lives on."""
    with living() as target:
        session_id = rpc.attach(stack.colony, target.service, "work").session_id
        with debugger_of(target.pid) as gdb:
            gdb.do("break *work")
            gdb.do("continue &")
            assert target.do("work 10")["calls"] == 10
            document = stack.cli.stop(session_id)
            assert "under a debugger" in document["collectors"][0]["instances"][0]["reason"]
            assert target.do("work 10")["calls"] == 20
            gdb.tell("interrupt")
            gdb.until(b"SIGINT")
            gdb.do("delete")
            gdb.do("detach")
        wait_until("the guard is gone", lambda: changed_text(target.pid) == [])
        assert target.do("work 10") == {"calls": 30, "returned": 30, "wrong": 0, "codes": 0}
        assert target.exit(6) == 6
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(10)
