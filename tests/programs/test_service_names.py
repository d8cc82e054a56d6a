"""Which services nginx, Redis and PostgreSQL are: programs that fork workers and write over their environment."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import servers
from support.cli import clean_environment
from support.target import unique_service

from coral.procfs.process import read_process
from coral.procfs.table import Entry, ProcessTable

pytestmark = pytest.mark.programs


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach: servers give up root, and pytest's own folders are private."""
    with tempfile.TemporaryDirectory(prefix="coral-names-") as path:
        yield Path(path)


def family(table: ProcessTable, service: str, eldest: int) -> dict[int, Entry]:
    """The entries of a service that are a process or its children, by pid; the host may run the same program elsewhere."""
    return {
        entry.process.id.pid: entry
        for entry in table.entries(service)
        if eldest in (entry.process.id.pid, entry.process.ppid)
    }


def children(pid: int) -> set[int]:
    """The pids of a process's children."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_nginx_is_one_service(folder: Path) -> None:
    """The master and its workers are instances of ``nginx``, the workers because they are its children."""
    with servers.nginx(folder) as nginx:
        assert nginx.process is not None
        table = ProcessTable()
        table.refresh()
        found = family(table, "nginx", nginx.process.pid)
        assert {pid: entry.inherited for pid, entry in found.items()} == {
            nginx.process.pid: False,
            **dict.fromkeys(nginx.workers(), True),
        }
        assert {entry.named.rule for entry in found.values()} == {"argv0"}
        assert found[nginx.process.pid].process.environ_overwritten


def test_the_workers_of_a_named_nginx_have_its_name(folder: Path) -> None:
    """The variable is known from the exec, before nginx wrote over it, and covers workers that start later."""
    service = unique_service("edge")
    (folder / "html").mkdir()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; user root; worker_processes 2; pid {folder}/pid; error_log {folder}/log; events {{}} "
        f"http {{ access_log off; server {{ listen unix:{folder}/socket; }} }}"
    )
    program = servers.executable("nginx", "nginx-light")
    # Opening its log, a pipe, holds nginx up between its exec and its title until somebody reads.
    log = folder / "log"
    os.mkfifo(log)
    table = ProcessTable()
    with subprocess.Popen(
        [program, "-c", configuration, "-p", folder, "-e", log], env=clean_environment({"CORAL_SERVICE": service})
    ) as process:
        try:
            table.notify_exec(process.pid)
            reader = os.open(log, os.O_RDONLY)
            servers.wait_until("nginx has its workers", lambda: len(children(process.pid)) == 2)
            servers.wait_until("nginx has its title", lambda: read_process(process.pid).environ_overwritten)
            table.refresh()
            found = {entry.process.id.pid: entry.inherited for entry in table.entries(service)}
            assert found == {process.pid: False, **dict.fromkeys(children(process.pid), True)}
            assert table.services()[service].rule == "CORAL_SERVICE"
            os.close(reader)
        finally:
            process.terminate()


def test_redis_is_named_by_its_ancestor_when_the_agent_came_late(folder: Path) -> None:
    """Redis has written over its variable; the shell that started it still has it."""
    service = unique_service("cache")
    with servers.redis(folder, service) as redis:
        table = ProcessTable()
        table.refresh()
        entry = table.entry_of(redis.pid())
        assert entry is not None
        assert entry.process.environ_overwritten
        assert (entry.named.name, entry.named.rule, entry.inherited) == (service, "CORAL_SERVICE", False)


def test_redis_without_the_variable_is_named_as_it_was_started(folder: Path) -> None:
    """``redis-server`` is a link to ``redis-check-rdb`` on Debian, and its title begins with the link's name."""
    with servers.redis(folder, "") as redis:
        table = ProcessTable()
        table.refresh()
        entry = table.entry_of(redis.pid())
        assert entry is not None
        assert (entry.named.name, entry.named.rule) == ("redis-server", "argv0")


def test_postgresql_is_one_service(folder: Path) -> None:
    """The postmaster, its helpers and a backend that starts later are instances of ``postgres`` whatever their titles."""
    with servers.postgresql(folder) as cluster:
        assert cluster.process is not None
        eldest = cluster.process.pid
        table = ProcessTable()
        table.refresh()
        helpers = children(eldest)
        assert len(helpers) >= 4
        client = ["psql", "-h", str(folder), "-p", str(cluster.port), "-U", "postgres", "postgres"]
        with subprocess.Popen(
            client, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as psql:
            assert psql.stdin is not None
            servers.wait_until("a backend serves psql", lambda: bool(children(eldest) - helpers))
            (backend,) = children(eldest) - helpers
            title = b"postgres: postgres postgres [local]"
            servers.wait_until(
                "the backend has its title", lambda: Path(f"/proc/{backend}/cmdline").read_bytes().startswith(title)
            )
            table.notify_fork(eldest, backend)
            table.refresh()
            found = family(table, "postgres", eldest)
            assert {pid: entry.inherited for pid, entry in found.items()} == {
                eldest: False,
                **dict.fromkeys({*helpers, backend}, True),
            }
            psql.communicate(b"\\q\n")
        servers.wait_until("the backend has ended", lambda: backend not in children(eldest))
        table.refresh()
        assert set(family(table, "postgres", eldest)) == {eldest, *helpers}
