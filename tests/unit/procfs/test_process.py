from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.actors import Actor
from support.fake_proc import stat_line, write_process

from coral.model.errors import Unavailable
from coral.procfs.process import Process, ProcessGone, ProcessId, is_alive, process_id, read_environ, read_process
from coral.procfs.stat import ExecMark, read_stat


def test_a_process_says_who_it_is(actor_path: Path) -> None:
    """Everything that is read of a real process."""
    with Actor([actor_path, "with blank", "", "x"], env={"A": "1", "B": "two"}) as actor:
        process = read_process(actor.pid)
        stat = read_stat(actor.pid)
        assert process == Process(
            id=ProcessId(pid=actor.pid, start_time_ns=stat.start_time_ns),
            ppid=os.getpid(),
            executable=str(actor_path),
            deleted=False,
            cmdline=(str(actor_path), "with blank", "", "x"),
            environ={"A": "1", "B": "two"},
            environ_overwritten=False,
            cgroup=read_process(os.getpid()).cgroup,
            comm="actor",
            is_kernel_thread=False,
            uid=os.geteuid(),
            mark=stat.mark,
        )
        assert is_alive(process.id)
        assert process_id(actor.pid) == process.id
        assert "two" not in repr(process)


def test_a_title_over_the_environment_is_noticed(actor_path: Path) -> None:
    """A program that writes a title over its environment leaves a title, no variables, and the knowledge of that."""
    with Actor([actor_path], env={"CORAL_SERVICE": "shop"}) as actor:
        before = read_environ(actor.pid)
        actor.do("t")
        process = read_process(actor.pid)
        assert (process.cmdline, dict(process.environ), process.environ_overwritten) == (("actor: at work",), {}, True)
        assert (before[0], before[1], dict(before[2].variables)) == (process.id, process.mark, {"CORAL_SERVICE": "shop"})


def test_a_deleted_executable_keeps_its_path(actor_path: Path, tmp_path: Path) -> None:
    """That the file is gone is said apart from its path."""
    copy = tmp_path / "my app"
    copy.write_bytes(actor_path.read_bytes())
    copy.chmod(0o755)
    with Actor([copy]) as actor:
        copy.unlink()
        process = read_process(actor.pid)
        assert (process.executable, process.deleted) == (str(copy), True)


def test_a_fork_keeps_the_mark_and_an_exec_changes_it(actor_path: Path) -> None:
    """The mark tells a forked child from one that called exec, also of the same program."""
    with Actor([actor_path, actor_path]) as actor:
        parent = read_process(actor.pid)
        child = read_process(actor.do("f"))
        assert (child.ppid, child.mark, child.executable) == (actor.pid, parent.mark, parent.executable)
        assert actor.do("e") == actor.pid
        again = read_process(actor.pid)
        assert (again.id, again.executable) == (parent.id, parent.executable)
        assert again.mark != parent.mark


def test_a_zombie_is_gone(actor_path: Path) -> None:
    """A process that has ended and is not yet waited for is not there any more."""
    with Actor([actor_path]) as actor:
        id = process_id(actor.pid)
        actor.tell("q")
        actor.wait_for_zombie()
        assert not is_alive(id)
        with pytest.raises(ProcessGone):
            read_process(actor.pid)


def test_a_process_outlives_its_main_thread(actor_path: Path) -> None:
    """After pthread_exit from main the process is read through a thread that goes on."""
    with Actor([actor_path, "x"], env={"A": "1"}) as actor:
        before = read_process(actor.pid)
        actor.tell("p")
        while read_stat(actor.pid).state != "Z":
            os.sched_yield()
        after = read_process(actor.pid)
        assert (after.id, after.executable, after.cmdline, after.environ) == (
            before.id,
            before.executable,
            before.cmdline,
            before.environ,
        )
        assert is_alive(before.id)


def test_another_process_of_the_same_pid_is_not_alive(actor_path: Path) -> None:
    """The start time is part of the identity."""
    with Actor([actor_path]) as actor:
        id = process_id(actor.pid)
        assert not is_alive(ProcessId(pid=id.pid, start_time_ns=id.start_time_ns - 10_000_000))


def _serve(directory: Path, stats: Sequence[bytes]) -> threading.Thread:
    """Makes ``environ`` a pipe, and replaces ``stat`` each time that it is read."""
    environ = directory / "environ"
    environ.unlink()
    os.mkfifo(environ)

    def serve() -> None:
        for number, stat in enumerate(stats):
            with environ.open("wb") as pipe:
                (directory / "stat").write_bytes(stat)
                pipe.write(b"READING=%d\0" % number)
                (environ.with_name("next")).unlink(missing_ok=True)
                os.mkfifo(environ.with_name("next"))
                environ.with_name("next").rename(environ)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_pid_reused_while_it_is_read_is_gone(tmp_path: Path) -> None:
    """Halves of two processes are never put together."""
    directory = write_process(tmp_path / "9", 9)
    thread = _serve(directory, [stat_line(9, start_ticks=200)])
    with pytest.raises(ProcessGone):
        read_process(9, proc=tmp_path)
    thread.join(5)


def test_a_process_that_calls_exec_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """Halves of two programs are never put together."""
    directory = write_process(tmp_path / "9", 9)
    after = stat_line(9, start_stack=99)
    thread = _serve(directory, [after, after])
    process = read_process(9, proc=tmp_path)
    thread.join(5)
    assert (dict(process.environ), process.mark) == ({"READING": "1"}, ExecMark(start_code=4096, start_stack=99))


def test_a_process_that_never_stops_calling_exec_is_given_up(tmp_path: Path) -> None:
    """The number of attempts is limited."""
    directory = write_process(tmp_path / "9", 9)
    thread = _serve(directory, [stat_line(9, start_stack=number) for number in range(100, 105)])
    with pytest.raises(Unavailable, match="replaces its program"):
        read_process(9, proc=tmp_path)
    thread.join(5)


def test_a_kernel_thread_has_no_program(tmp_path: Path) -> None:
    """Neither executable nor arguments nor environment are asked of a kernel thread."""
    directory = write_process(tmp_path / "2", 2, stat=stat_line(2, comm=b"kthreadd", ppid=0, flags=0x00200000))
    (directory / "exe").unlink()
    process = read_process(2, proc=tmp_path)
    assert (process.is_kernel_thread, process.comm, process.executable, process.cmdline) == (True, "kthreadd", "", ())


def test_a_process_in_the_middle_of_an_exec_is_left_for_later(tmp_path: Path) -> None:
    """While the new program has no arguments yet, it is not shown without them."""
    write_process(tmp_path / "9", 9, stat=stat_line(9, start_code=0, start_stack=5), cmdline=b"")
    with pytest.raises(Unavailable, match="replaces its program"):
        read_process(9, proc=tmp_path)
    with pytest.raises(Unavailable, match="replaces its program"):
        read_environ(9, proc=tmp_path)


@pytest.mark.parametrize("name", ["exe", "cmdline", "environ", "stat"])
def test_a_process_may_vanish_at_any_point(tmp_path: Path, name: str) -> None:
    """Whichever file is missing, the process is gone."""
    (write_process(tmp_path / "9", 9) / name).unlink()
    with pytest.raises(ProcessGone):
        read_process(9, proc=tmp_path)
