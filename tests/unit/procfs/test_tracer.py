from __future__ import annotations

import ctypes
import os
from pathlib import Path

from support.actors import Actor

from coral.procfs.tracer import traced_processes, tracer_of

_PTRACE_SEIZE = 0x4206


def test_who_traces_a_process(actor_path: Path) -> None:
    """Nobody at first, then the process that seized it, which the search of all processes finds too."""
    with Actor([actor_path]) as actor:
        assert tracer_of(actor.pid) == 0
        assert list(traced_processes(actor.pid)) == []
        assert ctypes.CDLL(None).ptrace(_PTRACE_SEIZE, actor.pid, None, None) == 0
        assert tracer_of(actor.pid) == os.getpid()
        assert (actor.pid, os.getpid()) in list(traced_processes())
        assert list(traced_processes(actor.pid)) == [(actor.pid, os.getpid())]
