"""What a daemon takes of the machine: memory, descriptors, threads, processes and probes, read from /proc."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from pathlib import Path

from faults.links import links_of

_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One daemon at one moment.

    Attributes:
        pid: Of the daemon; another one is another life.
        memory_kib: Anonymous memory of it and its workers (what it shares with files is not its growth).
        descriptors: That it has open.
        threads: Of the daemon itself.
        processes: It and its workers.
        links: BPF links that it holds.
        tasks: Of its event loop; -1 where it serves no metrics.
    """

    pid: int
    memory_kib: int
    descriptors: int
    threads: int
    processes: int
    links: int
    tasks: int = -1

    def __str__(self) -> str:
        return (
            f"{self.memory_kib >> 10} MiB, {self.descriptors} fds, {self.threads} threads, {self.tasks} tasks, "
            f"{self.processes} processes, {self.links} links"
        )


def footprint(pid: int, metrics: str = "") -> Footprint:
    """Measures a daemon with its workers.

    Args:
        pid: Of the daemon.
        metrics: HOST:PORT where it serves its metrics.

    Raises:
        FileNotFoundError: It is gone.
    """
    own = Path(f"/proc/{pid}")
    family = [pid, *workers(pid)]
    return Footprint(
        pid=pid,
        memory_kib=sum(_anonymous_kib(one) for one in family),
        descriptors=len(list((own / "fd").iterdir())),
        threads=len(list((own / "task").iterdir())),
        processes=len(family),
        links=links_of(pid),
        tasks=_tasks(metrics) if metrics else -1,
    )


def workers(pid: int) -> list[int]:
    """All processes below a daemon, in the order in which they are found."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found.append(child)
            try:
                found += workers(child)
            except FileNotFoundError:
                continue
    return found


def _tasks(metrics: str) -> int:
    """How many tasks a daemon's event loop has, as it says itself; one of them is the answer."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=_ANSWER_S) as answer:
        text = answer.read().decode()
    return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("coral_tasks "))


def _anonymous_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0
