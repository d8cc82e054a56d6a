"""What a process's code looks like in memory, against the files it was mapped from."""

from __future__ import annotations

import time
from pathlib import Path


def changed_text(pid: int) -> list[str]:
    """Where the executable mappings of a process differ from their files, as ``PATH+0xOFFSET``; empty when nowhere."""
    changed = []
    thread = _thread_with_memory(pid)
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{thread}/maps").read_text().splitlines():
            span, permissions, offset_text, _, inode, *name = line.split(maxsplit=5)
            if "x" not in permissions or inode == "0":
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            offset = int(offset_text, 16)
            memory.seek(start)
            mapped = memory.read(end - start)
            with open(f"/proc/{thread}/map_files/{start:x}-{end:x}", "rb") as file:
                file.seek(offset)
                original = file.read(end - start).ljust(end - start, b"\0")
            if mapped != original:
                changed += [f"{name[0]}+{offset + i:#x}" for i in range(end - start) if mapped[i] != original[i]]
    return changed


def _thread_with_memory(pid: int) -> int:
    """The main thread, or another one when that has ended before the process has."""
    threads = [pid, *(int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir())]
    return next(thread for thread in threads if Path(f"/proc/{thread}/maps").read_bytes())


def wait_until_restored(pid: int, timeout_s: float) -> float:
    """Waits until the text of a process equals its files again; returns the wall-clock time at which it was seen to."""
    deadline = time.monotonic() + timeout_s
    while changed := changed_text(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the text of {pid} is still changed after {timeout_s} s: {changed[:5]}")
        time.sleep(0.02)
    return time.time()
