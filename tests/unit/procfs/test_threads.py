from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.actors import Actor
from support.fake_proc import stat_line

from coral.procfs.files import ProcessGone
from coral.procfs.maps import modules, open_module, read_maps
from coral.procfs.memory import read_memory
from coral.procfs.threads import memory_task


def test_the_memory_of_a_process_whose_main_thread_has_ended(actor_path: Path) -> None:
    """What the ended thread does not show any more, mappings, memory and files, is read through one that runs."""
    with Actor([actor_path]) as actor:
        before = {(module.path, module.inode) for module in modules(actor.pid)}
        assert memory_task(actor.pid) == actor.pid
        actor.tell("p")
        while memory_task(actor.pid) == actor.pid:
            os.sched_yield()
        assert {(module.path, module.inode) for module in modules(actor.pid)} >= before  # it loads libgcc_s to unwind
        program = next(mapping for mapping in read_maps(actor.pid) if mapping.path == str(actor_path))
        assert read_memory(actor.pid, program.start, 4) == b"\x7fELF"
        fd = open_module(actor.pid, program)
        assert os.fstat(fd).st_ino == actor_path.stat().st_ino
        os.close(fd)


def test_a_process_without_a_thread_that_runs_is_gone(tmp_path: Path) -> None:
    """A zombie, and a group of threads of which each has ended."""
    (tmp_path / "9" / "task" / "10").mkdir(parents=True)
    (tmp_path / "9" / "stat").write_bytes(stat_line(9, state="Z", threads=2))
    (tmp_path / "9" / "task" / "10" / "stat").write_bytes(stat_line(10, state="X"))
    with pytest.raises(ProcessGone):
        memory_task(9, proc=tmp_path)
