"""The line of /proc/PID/stat: cheap (10 µs) and enough to tell whether a process is still the one that was read before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from coral.procfs.files import PROC, ProcessGone, read_file

NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PF_KTHREAD = 0x00200000
"""include/linux/sched.h: "I am a kernel thread"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecMark:
    """What exec draws at random and fork copies: two processes of one mark descend from the same exec.

    Both are 0 or 1 when they may not be read, and then say nothing. Without address space randomisation equal programs with
    equally long arguments and environments share a mark.

    Attributes:
        start_code: Where the program's code begins.
        start_stack: Where its stack began.
    """

    start_code: int
    start_stack: int

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return self.start_stack != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """The fields of proc(5), /proc/PID/stat, that Coral looks at.

    Attributes:
        pid: In the pid namespace of the proc that was read.
        comm: The name of its main thread, at most 15 bytes.
        state: One letter; Z is a zombie.
        ppid: Its parent.
        is_kernel_thread: Whether it has no user space.
        threads: How many are left, a main thread that has ended included until the last one ends.
        start_time_ns: Since boot, with the resolution of the clock tick (10 ms).
        mark: Which exec it comes from.
    """

    pid: int
    comm: str
    state: str
    ppid: int
    is_kernel_thread: bool
    threads: int
    start_time_ns: int
    mark: ExecMark

    @property
    def in_exec(self) -> bool:
        """Whether it is in the middle of an exec: the new memory is there, but neither arguments nor environment are.

        ``load_elf_binary`` (fs/binfmt_elf.c) sets ``start_code``, which is 0 until then, after it has placed them. The reader
        that may not see it gets 1.
        """
        return not self.is_kernel_thread and self.state not in "ZXx" and self.mark.start_code == 0

    @property
    def is_dead(self) -> bool:
        """Whether nothing of it runs. A zombie main thread whose other threads go on is alive: pthread_exit(3) from main."""
        return self.state in "ZXx" and self.threads <= 1


def parse_stat(data: bytes) -> Stat:
    """Parses one line; ``comm`` may hold blanks and parentheses, so it ends at the last one.

    Raises:
        ValueError: It is not such a line.
    """
    head, _, tail = data.rpartition(b")")
    pid, _, comm = head.partition(b" (")
    fields = tail.split()
    if len(fields) < 26:
        raise ValueError(f"not a line of /proc/PID/stat: {data[:80]!r}")

    def field(number: int) -> int:
        """Numbers as proc(5) counts them; the state is field 3."""
        return int(fields[number - 3])

    return Stat(
        pid=int(pid),
        comm=os.fsdecode(comm),
        state=fields[0].decode(),
        ppid=field(4),
        is_kernel_thread=bool(field(9) & _PF_KTHREAD),
        threads=field(20),
        start_time_ns=field(22) * NS_PER_TICK,
        mark=ExecMark(start_code=field(26), start_stack=field(28)),
    )


def read_stat(pid: int, *, proc: Path = PROC) -> Stat:
    """What /proc/PID/stat says now.

    Raises:
        ProcessGone: There is no such process.
    """
    data = read_file(pid, "stat", proc=proc)
    if not data:
        raise ProcessGone(pid)
    return parse_stat(data)
