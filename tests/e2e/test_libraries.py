"""A function that several libraries of a process have: never a guess which of them is meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest
from support import build, rpc
from support.observe import counted, every_call_stored, observe
from support.stack import Stack
from support.target import running

pytestmark = pytest.mark.kernel


def test_function_of_several_libraries(stack: Stack, tmp_path: Path) -> None:
    """A bare name of two libraries is refused with what to choose from; each can be chosen, and counts its own calls."""
    library = build.c_library("shared")
    program = build.c_user_of(library, "user")
    called = tmp_path / "before" / library.name
    called.parent.mkdir()
    shutil.copy2(library, called)
    with running(program, env={"LD_PRELOAD": str(called)}) as target:
        choice = f"Choose one: {library}!shared_work, {called}!shared_work."
        for name in ("shared_work", f"{library.name}!shared_work"):
            with pytest.raises(grpc.RpcError) as refused:
                rpc.attach(stack.colony, target.service, name)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details().startswith("'shared_work' means functions of 2 libraries of user (pid ")
            assert refused.value.details().endswith(choice)
            explained = stack.cli.run("debug", "info", target.service, "-f", name, "-o", "json")
            assert (explained.exit_code, explained.error()["hint"]) == (2, choice)
        session = observe(stack, target, f"before/{library.name}!shared_work", events=False)
    assert counted(session.ledger) == every_call_stored(500)
    with running(program, env={"LD_PRELOAD": str(called)}) as target:
        assert counted(observe(stack, target, f"{library}!shared_work", events=False).ledger) == {}


def test_function_that_the_loader_has_too(stack: Stack) -> None:
    """A bare memcpy is that of the C library, which cannot be probed by that name; programs do not call the loader's."""
    with running(build.c_program("loop")) as target:
        refused = stack.cli.run("debug", "attach", target.service, "-f", "memcpy", "-o", "json")
        assert refused.exit_code == 1
        assert refused.error()["message"].startswith("memcpy cannot be probed: it is chosen when the program starts (IFUNC)")
        assert "__memcpy_" in refused.error()["hint"]
        explained = stack.cli.ok("debug", "info", target.service, "-f", "memcpy", "-o", "json").json()
        assert [image["library"] for image in explained["images"]] == ["libc.so.6"]


def test_library_that_only_one_service_has_loaded(stack: Stack, tmp_path: Path) -> None:
    """Its probes are for all who map it, also the first time, when a reader of Coral's has it mapped: no child is late."""
    library = build.c_library("shared")
    program = shutil.copy2(build.c_user_of(library, "user"), tmp_path)
    (tmp_path / library.name).write_bytes(library.read_bytes())
    with running(Path(program), "--calls", 10, "--children", 9) as target:
        session = observe(stack, target, f"{library.name}!shared_work", events=False)
    assert counted(session.ledger) == every_call_stored(100)


def test_children_that_end_while_they_are_probed(stack: Stack) -> None:
    """Where each process needs links of its own, children that end before they have them harm neither agent nor program."""
    program = build.c_user_of(build.c_library("shared"), "user")
    with running(program, "--children", 200, "--calls", 500_000) as target:
        session_id = rpc.attach(stack.colony, target.service, "libc.so.6!malloc_trim").session_id
        assert target.run()["wrong"] == 0
        document = stack.cli.stop(session_id)
        assert (document["status"], document["ledger"]["balanced"]) == ("detached", True)
        assert target.finish() == 0
