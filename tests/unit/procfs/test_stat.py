from __future__ import annotations

import os

import pytest
from support.fake_proc import TICKS_PER_SECOND, stat_line

from coral.procfs.files import ProcessGone
from coral.procfs.stat import ExecMark, Stat, parse_stat, read_stat


@pytest.mark.parametrize("comm", [b"nginx", b"a) S 1 (b", b"((", b"))", b" ", b"", b"tab\tnl\n"])
def test_a_name_may_hold_blanks_and_parentheses(comm: bytes) -> None:
    """The name ends at the last parenthesis of the line, whatever it holds."""
    line = stat_line(7, comm=comm, ppid=3, threads=2, start_ticks=250, start_code=16, start_stack=32)
    assert parse_stat(line) == Stat(
        pid=7,
        comm=comm.decode(),
        state="S",
        ppid=3,
        is_kernel_thread=False,
        threads=2,
        start_time_ns=250 * 1_000_000_000 // TICKS_PER_SECOND,
        mark=ExecMark(start_code=16, start_stack=32),
    )


def test_a_kernel_thread_is_told_by_its_flag() -> None:
    """PF_KTHREAD, one bit among others, makes a kernel thread."""
    assert parse_stat(stat_line(2, flags=0x00200000 | 0x40)).is_kernel_thread
    assert not parse_stat(stat_line(2, flags=0x40)).is_kernel_thread


@pytest.mark.parametrize(
    ("state", "threads", "dead"), [("Z", 1, True), ("X", 0, True), ("Z", 2, False), ("S", 1, False), ("D", 1, False)]
)
def test_a_zombie_with_threads_left_is_alive(state: str, threads: int, dead: bool) -> None:
    """A process is dead when its main thread is and no other thread is left."""
    assert parse_stat(stat_line(1, state=state, threads=threads)).is_dead is dead


@pytest.mark.parametrize("line", [b"", b"1 (x)", b"1 (x) S 1 2", b"no line at all"])
def test_what_is_no_such_line_is_refused(line: bytes) -> None:
    """Half a line is an error, not a guess."""
    with pytest.raises(ValueError, match="not a line"):
        parse_stat(line)


def test_this_process_reads_itself() -> None:
    """The kernel's own line is understood."""
    stat = read_stat(os.getpid())
    assert (stat.pid, stat.ppid, stat.is_dead, stat.is_kernel_thread) == (os.getpid(), os.getppid(), False, False)
    assert stat.mark.known


def test_a_pid_that_nobody_has_is_gone() -> None:
    """A missing process is ProcessGone, which is a LookupError and NOT_FOUND and names the pid."""
    with pytest.raises(ProcessGone, match="Process 4194305 is gone") as caught:
        read_stat(4194305)
    assert (caught.value.pid, caught.value.code, isinstance(caught.value, LookupError)) == (4194305, "NOT_FOUND", True)
