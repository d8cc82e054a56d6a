from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.actors import Actor
from support.fake_proc import stat_line, write_process

from coral.procfs.service import ServiceRule
from coral.procfs.table import Changes, Entry, ProcessTable, ServiceSummary

_number = itertools.count()


@pytest.fixture
def service() -> str:
    """A service name that nothing else on this host has."""
    return f"test-{os.getpid()}-{next(_number)}"


def pids(entries: list[Entry]) -> list[int]:
    """The pids of entries."""
    return [entry.process.id.pid for entry in entries]


def inherited(entries: list[Entry]) -> dict[int, bool]:
    """By pid, whether the service is the parent's."""
    return {entry.process.id.pid: entry.inherited for entry in entries}


def pids_of(changes: Changes, *actors: int) -> tuple[list[int], list[int]]:
    """Which of these pids started and exited; a live host has others."""
    return (
        [pid for pid in pids(changes.started) if pid in actors],
        [pid for pid in pids(changes.exited) if pid in actors],
    )


def test_a_process_comes_and_goes(actor_path: Path, service: str) -> None:
    """A process is an entry from the refresh after its start to the one after its end, and each is told once."""
    table = ProcessTable()
    table.refresh()
    env = {"CORAL_SERVICE": service, "CORAL_SDK_ADDR": "127.0.0.1:9", "CORAL_SDK_VERSION": "1.0"}
    with Actor([actor_path], env=env) as actor:
        assert pids_of(table.refresh(), actor.pid) == ([actor.pid], [])
        assert pids(table.entries(service)) == [actor.pid]
        assert table.services()[service] == ServiceSummary(
            name=service, rule="CORAL_SERVICE", instances=1, sdk_addr="127.0.0.1:9", sdk_version="1.0"
        )
        entry = table.entry_of(actor.pid)
        assert entry == table.entries(service)[0]
        assert pids_of(table.refresh(thorough=True), actor.pid) == ([], [])
        actor.tell("q")
        actor.wait()
        assert pids_of(table.refresh(), actor.pid) == ([], [actor.pid])
        assert (table.entries(service), service in table.services(), table.entry_of(actor.pid)) == ([], False, None)


def test_a_zombie_is_no_entry(actor_path: Path, service: str) -> None:
    """A process ends for its service when it ends, not when its parent has waited for it; told, the next look sees that."""
    table = ProcessTable()
    with Actor([actor_path], env={"CORAL_SERVICE": service}) as actor:
        table.refresh()
        actor.tell("q")
        actor.wait_for_zombie()
        table.notify_exit(actor.pid)
        assert pids_of(table.refresh(), actor.pid) == ([], [actor.pid])
        assert pids_of(table.refresh(thorough=True), actor.pid) == ([], [])
        assert table.entries(service) == []


def test_a_forked_child_is_of_its_parents_service(actor_path: Path, service: str) -> None:
    """Children of a fork are instances of the service whatever their titles and environments say, also found by looking."""
    table = ProcessTable()
    with Actor([actor_path], env={"CORAL_SERVICE": service}) as actor:
        table.refresh()
        actor.do("t")
        children = [actor.do("f"), actor.do("f")]
        started, _ = pids_of(table.refresh(), actor.pid, *children)
        assert sorted(started) == sorted(children)
        assert inherited(table.entries(service)) == {actor.pid: False, **dict.fromkeys(children, True)}
        assert table.services()[service].instances == 3


def test_parents_and_children_that_are_seen_together(actor_path: Path) -> None:
    """A first look that finds a whole family with titles names it by its eldest."""
    with Actor([actor_path], env={}) as actor:
        actor.do("t")
        child = actor.do("f")
        table = ProcessTable(rules=[ServiceRule(name="family", executable=str(actor_path), cmdline="at work")])
        changes = table.refresh()
        assert pids_of(changes, actor.pid, child) == ([actor.pid, child], [])
        assert inherited(table.entries("family")) == {actor.pid: False, child: True}


def test_an_exec_ends_one_instance_and_starts_another(actor_path: Path, tmp_path: Path, service: str) -> None:
    """A process that calls exec leaves its service; what it runs now is named anew, without any notification."""
    other = tmp_path / f"other-{service}"
    other.symlink_to(actor_path)
    table = ProcessTable(rules=[ServiceRule(name=service, cmdline=f"^first .*{service}")])
    with Actor(["first", str(other)], executable=actor_path) as actor:
        table.refresh()
        assert pids(table.entries(service)) == [actor.pid]
        assert actor.do("e") == actor.pid
        assert pids_of(table.refresh(), actor.pid) == ([actor.pid], [actor.pid])
        assert (pids(table.entries(service)), pids(table.entries(other.name))) == ([], [actor.pid])


def test_a_forked_child_that_calls_exec_is_on_its_own(actor_path: Path, service: str) -> None:
    """The parent's name covers a forked child only until it calls exec, also when it execs the parent's program."""
    table = ProcessTable(rules=[ServiceRule(name=service, cmdline=f"^{service}")])
    argv = [service, "-c", f"sh -c '{actor_path}; true'; true"]
    with Actor(argv, executable=Path("/bin/sh"), env={"PATH": "/bin"}) as actor:
        table.refresh()
        found = table.entry_of(actor.pid)
        assert found is not None
        inner = table.entry_of(found.process.ppid)
        assert inner is not None
        outer = table.entry_of(inner.process.ppid)
        assert outer is not None
        assert outer.process.executable == inner.process.executable
        assert [(e.named.name, e.inherited) for e in (outer, inner, found)] == [
            (service, False),
            ("sh", False),
            ("actor", False),
        ]


def test_an_environment_written_over_is_taken_from_the_nearest_ancestor(actor_path: Path, service: str) -> None:
    """When only the agent came too late, an ancestor that still has the variable names the service."""
    script = f'"{actor_path}"; true'
    env = {"CORAL_SERVICE": service, "OTEL_SERVICE_NAME": "not-this"}
    with Actor(["sh", "-c", script], executable=Path("/bin/sh"), env=env) as actor:
        actor.do("t")
        table = ProcessTable()
        table.refresh()
        entry = table.entry_of(actor.pid)
        assert entry is not None
        assert (entry.process.environ_overwritten, entry.named.name, entry.named.rule) == (True, service, "CORAL_SERVICE")
        assert len(table.entries(service)) == 2


def test_an_environment_that_is_there_needs_no_ancestor(actor_path: Path, service: str) -> None:
    """A program that was started without the variable is not named by its parent's."""
    script = f'unset CORAL_SERVICE; "{actor_path}"; true'
    with Actor(["sh", "-c", script], executable=Path("/bin/sh"), env={"CORAL_SERVICE": service}) as actor:
        table = ProcessTable()
        table.refresh()
        entry = table.entry_of(actor.pid)
        assert entry is not None
        assert entry.named.rule == "argv0"


def test_the_environment_is_read_at_exec(actor_path: Path, service: str) -> None:
    """What is written over before the next look was read when the kernel told of the exec."""
    told, untold = ProcessTable(), ProcessTable()
    with Actor([actor_path], env={"CORAL_SERVICE": service}) as actor:
        told.notify_exec(actor.pid)
        actor.do("t")
        told.refresh()
        untold.refresh()
        assert (pids(told.entries(service)), pids(untold.entries(service))) == ([actor.pid], [])
        child = actor.do("f")
        told.refresh()
        assert inherited(told.entries(service)) == {actor.pid: False, child: True}


def test_a_daemon_is_of_the_service_that_forked_it_and_went(actor_path: Path, service: str) -> None:
    """A parent that lived only between two looks still hands on its service, through any number of forks."""
    table = ProcessTable()
    table.refresh()
    with Actor([actor_path], env={"CORAL_SERVICE": service}) as actor:
        table.notify_exec(actor.pid)
        daemon = actor.do("d")
        table.notify_fork(actor.pid, daemon)
        actor.wait()
        actor.do("t")
        worker = actor.do("f")
        table.notify_fork(daemon, worker)
        table.refresh()
        assert inherited(table.entries(service)) == {daemon: False, worker: True}


def test_a_daemon_of_a_known_service_inherits_it(actor_path: Path, service: str) -> None:
    """Told of the fork, the table names the child by the parent that it knew, although that is gone."""
    table = ProcessTable(rules=[ServiceRule(name=service, cmdline=f"^{service}")])
    with Actor([service], executable=actor_path) as actor:
        table.refresh()
        daemon = actor.do("d")
        table.notify_fork(actor.pid, daemon)
        actor.wait()
        actor.do("t")
        assert pids_of(table.refresh(), actor.pid, daemon) == ([daemon], [actor.pid])
        assert inherited(table.entries(service)) == {daemon: True}


def test_notifications_about_nobody_are_harmless() -> None:
    """The kernel's word may come after the process has gone."""
    table = ProcessTable()
    gone = 1 << 22
    table.notify_exec(gone)
    table.notify_fork(gone, gone + 1)
    table.notify_exit(gone)
    assert pids_of(table.refresh(), gone, gone + 1) == ([], [])


def test_coral_itself_is_never_an_entry(tmp_path: Path, service: str) -> None:
    """Neither the agent, nor what it forks, nor another Coral command, even with the variable set."""
    script = tmp_path / "coral"
    script.write_text("print('ready', flush=True); input()")
    other = tmp_path / "shop"
    other.write_text(script.read_text())
    table = ProcessTable()
    with ExitStack() as stack:
        running = []
        for path in (script, other):
            child = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, path],
                    env={"CORAL_SERVICE": service},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert child.stdout is not None
            child.stdout.readline()
            running.append(child)
        with forked_from_here() as forked:
            table.refresh()
            entries = [table.entry_of(pid) for pid in (os.getpid(), forked, running[0].pid)]
            assert (entries, pids(table.entries(service))) == ([None, None, None], [running[1].pid])
        for child in running:
            child.communicate(b"\n")


@contextmanager
def forked_from_here() -> Iterator[int]:
    """The pid of a child forked from this process, which waits until the end of the block."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        yield pid
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    """A pid that another process has got since the last look is told from the one that had it, whoever is old by now."""
    write_process(tmp_path / "1", 1, executable="/sbin/init", cmdline=b"init\0")
    write_process(tmp_path / "50", 50, environ=b"CORAL_SERVICE=old\0")
    table = ProcessTable(own_pid=1, proc=tmp_path)
    table.refresh()
    assert sorted(table.services()) == ["old"]
    write_process(tmp_path / "next", 50, stat=stat_line(50, start_ticks=900), environ=b"CORAL_SERVICE=new\0")
    (tmp_path / "50").rename(tmp_path / "before")
    (tmp_path / "next").rename(tmp_path / "50")
    changes = table.refresh()
    assert ([e.named.name for e in changes.exited], [e.named.name for e in changes.started]) == (["old"], ["new"])


def test_a_reused_pid_is_no_ones_parent(tmp_path: Path) -> None:
    """A process is not of the service of a younger one that has got its parent's pid."""
    write_process(tmp_path / "1", 1, executable="/sbin/init", cmdline=b"init\0")
    write_process(tmp_path / "50", 50, stat=stat_line(50, start_ticks=900), environ=b"CORAL_SERVICE=young\0")
    write_process(tmp_path / "60", 60, stat=stat_line(60, ppid=50, start_ticks=800), environ=b"\0\0\0")
    table = ProcessTable(own_pid=1, proc=tmp_path)
    table.refresh()
    assert {name: pids(table.entries(name)) for name in table.services()} == {"app": [60], "young": [50]}


def test_an_exec_that_leaves_no_mark_is_noticed_when_it_is_reported(tmp_path: Path) -> None:
    """Without address space randomisation the same program has the same mark again; what the kernel reports still counts."""
    write_process(tmp_path / "1", 1, executable="/sbin/init", cmdline=b"init\0")
    write_process(tmp_path / "9", 9)
    table = ProcessTable(own_pid=1, proc=tmp_path)
    table.refresh()
    table.notify_exec(9)
    changes = table.refresh()
    assert (pids(changes.exited), pids(changes.started)) == ([9], [9])
    assert table.refresh(thorough=True) == Changes()


def test_kernel_threads_and_the_dead_are_no_entries(tmp_path: Path) -> None:
    """Nor is a process whose files vanish while they are read; other entries of proc are no processes."""
    write_process(tmp_path / "1", 1, executable="/sbin/init", cmdline=b"init\0")
    write_process(tmp_path / "2", 2, stat=stat_line(2, flags=0x00200000))
    write_process(tmp_path / "3", 3, stat=stat_line(3, state="Z"))
    (write_process(tmp_path / "4", 4) / "environ").unlink()
    write_process(tmp_path / "5", 5)
    (tmp_path / "self").symlink_to("5")
    (tmp_path / "uptime").write_text("1 1")
    table = ProcessTable(own_pid=1, proc=tmp_path)
    assert pids(table.refresh().started) == [5]
    assert pids(table.refresh(thorough=True).started) == []


def test_many_processes_are_all_looked_at_within_a_few_refreshes(tmp_path: Path) -> None:
    """An exec that nobody told of, in a process that is not young, is seen after at most a round of refreshes."""
    write_process(tmp_path / "1", 1, executable="/sbin/init", cmdline=b"init\0")
    for pid in range(100, 400):
        write_process(tmp_path / str(pid), pid, executable=f"/bin/app{pid}")
    table = ProcessTable(own_pid=1, proc=tmp_path)
    table.refresh()
    for pid in (100, 277, 399):
        (tmp_path / str(pid) / "stat").write_bytes(stat_line(pid, start_stack=1))
    seen = [pid for _ in range(6) for pid in pids(table.refresh().started)]
    assert sorted(seen) == [100, 277, 399]


def test_looking_again_costs_little(actor_path: Path) -> None:
    """A refresh costs at most 10 µs of CPU a process: 500 of them, twice a second, are 1 % of a core."""
    with Actor([actor_path]) as actor:
        for _ in range(500):
            actor.do("f")
        table = ProcessTable()
        table.refresh()
        for known in table._known.values():
            known.young_until_ns = 0  # as five seconds later
        costs_ns = []
        for _ in range(10):
            before_ns = time.process_time_ns()
            table.refresh()
            costs_ns.append(time.process_time_ns() - before_ns)
        # The least of them: the others share caches and memory with whatever else runs at the time.
        assert min(costs_ns) < 10_000 * len(table._known)
