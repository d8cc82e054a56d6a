from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.actors import Actor

from coral.procfs.argv0 import name_from_arguments
from coral.procfs.process import Process, ProcessId, read_process


@pytest.mark.parametrize(
    ("argv0", "executable", "name"),
    [
        ("/usr/sbin/nginx", "/usr/sbin/nginx", "nginx"),
        ("nginx: worker process", "/usr/sbin/nginx", "nginx"),
        ("nginx: master process /usr/sbin/nginx -g daemon off;", "/usr/sbin/nginx", "nginx"),
        ("postgres: alice shop [local] idle", "/usr/lib/postgresql/15/bin/postgres", "postgres"),
        ("-bash", "/usr/bin/bash", "bash"),
        ("/opt/my app: new/the server", "/opt/my app: new/the server", "the server"),
        ("", "/usr/bin/app", ""),
        ("something else", "/usr/bin/app", ""),
        ("-", "/usr/bin/app", ""),
        ("/usr/bin/", "/usr/bin/app", ""),
    ],
)
def test_the_name_of_the_executable_counts(argv0: str, executable: str, name: str) -> None:
    """A path, a title's first word or a login shell's name counts when it is the name of the executable."""
    process = Process(
        id=ProcessId(pid=1 << 22, start_time_ns=0), ppid=1, executable=executable, deleted=False, cmdline=(argv0,), environ={}
    )
    assert name_from_arguments(process) == name


def test_a_link_to_the_executable_counts(actor_path: Path, tmp_path: Path) -> None:
    """A service started by a link has the link's name, however the starter wrote it; a name that is no link has none."""
    link = tmp_path / "cache-server"
    link.symlink_to(actor_path)
    (tmp_path / "unrelated").write_text("")
    beside = actor_path.with_name("beside")
    beside.symlink_to(actor_path.name)
    found = []
    for argv0, env in [
        (str(link), {}),
        ("./cache-server", {}),
        ("cache-server", {"PATH": f"relative::{tmp_path}"}),
        ("cache-server *:6379", {"PATH": str(tmp_path)}),
        ("cache-server", {}),
        ("beside", {}),
        (str(tmp_path / "unrelated"), {}),
    ]:
        with Actor([argv0], executable=actor_path, env=env, cwd=tmp_path) as actor:
            found.append(name_from_arguments(read_process(actor.pid)))
    assert found == ["cache-server", "cache-server", "cache-server", "cache-server", "", "beside", ""]


def test_a_script_is_named_by_its_interpreter() -> None:
    """argv[0] of a script is its interpreter, by the name in the first line."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert name_from_arguments(read_process(child.pid)) == Path(sys.executable).name
        child.communicate(b"\n")
