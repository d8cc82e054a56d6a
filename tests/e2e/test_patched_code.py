"""Processes that do not run what their files have: hooks of monitoring agents, and code that is left writable."""

from __future__ import annotations

import grpc
import pytest
from support import build, rpc
from support.observe import counted, every_call_stored, ledger_faults
from support.stack import Stack
from support.target import Target, running, unique_service
from support.text import changed_text

pytestmark = pytest.mark.kernel


def _ends_well(target: Target, **truth: int) -> None:
    assert target.run() == truth
    assert target.finish() == 0


def test_hooked_function(stack: Stack) -> None:
    """A process whose function leads through a hook is left alone, with the reason; the others of its service are probed."""
    service, program = unique_service("hooked"), build.c_program("hooked")
    with running(program, "--hook", 1, service=service) as hooked:
        before = changed_text(hooked.pid)
        with pytest.raises(grpc.RpcError) as refused:
            rpc.attach(stack.colony, service, "work")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"The code of the function was changed in process {hooked.pid}" in refused.value.details()
        assert "instead of 55. A monitoring agent or the program itself" in refused.value.details()
        with running(program, service=service) as plain:
            session_id = rpc.attach(stack.colony, service, "work").session_id
            (session,) = rpc.sessions(stack.colony, session_id=session_id)
            instances = {one.pid: one for one in session.collectors[0].instances}
            assert {pid: one.status for pid, one in instances.items()} == {hooked.pid: "failed", plain.pid: "attached"}
            assert "was changed in process" in instances[hooked.pid].reason
            assert changed_text(hooked.pid) == before
            assert len(changed_text(plain.pid)) == 2
            _ends_well(hooked, calls=100, hooks=100, wrong=0)
            assert plain.run() == {"calls": 100, "hooks": 0, "wrong": 0}
            document = stack.cli.stop(session_id)
            assert changed_text(plain.pid) == []
            assert plain.finish() == 0
    assert counted(document["ledger"]) == every_call_stored(100)
    assert ledger_faults(document["ledger"]) == []


def test_writable_code(stack: Stack) -> None:
    """Code that is mapped writable gets no probe from the kernel, and that is what the refusal says."""
    with running(build.c_program("hooked"), "--writable", 1) as target:
        with pytest.raises(grpc.RpcError) as refused:
            rpc.attach(stack.colony, target.service, "work")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"Process {target.pid} maps the code of work writable" in refused.value.details()
        assert changed_text(target.pid) == []
        _ends_well(target, calls=100, hooks=0, wrong=0)
