"""Real servers from the distribution's packages, each in its own folder, with the truth that it keeps itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.cli import clean_environment
from support.namespaces import UNSHARE
from support.stack import free_port


def executable(name: str, package: str) -> str:
    """The path of a program; an error that names the Debian package when it is not there."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError(f"{name} is not installed: `make test` as root installs the package {package}.")
    return found


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = 20) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether something listens on a port of this host."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(*command: str, timeout_s: float = 120) -> str:
    """Runs a client to its end, which has to be a success, and returns what it printed."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=clean_environment(),
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _environment(service: str) -> dict[str, str]:
    """The environment of a server; its service is named after its program unless another name is given."""
    return clean_environment({"CORAL_SERVICE": service} if service else None)


def _title(pid: str) -> bytes:
    """What a process calls itself; nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class Nginx:
    """nginx with two workers and an access log.

    Args:
        folder: For all that it writes.
        service: What its processes are called.
        program: Its executable, for one of the test's own.
    """

    function = "ngx_http_process_request"

    def __init__(self, folder: Path, service: str = "", program: str = "") -> None:
        self.service = service
        self.program = program
        self.port = free_port()
        self.access_log = folder / "access.log"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it in the foreground, and waits until it listens and has its workers."""
        folder = self._folder
        (folder / "html").mkdir()
        (folder / "html" / "index.html").write_text("hello\n")
        (folder / "nginx.conf").write_text(
            f"""daemon off;
            user root;
            worker_processes 2;
            pid {folder}/nginx.pid;
            error_log {folder}/error.log;
            events {{ worker_connections 512; }}
            http {{
              access_log {self.access_log};
              client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
              uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
              server {{ listen 127.0.0.1:{self.port}; root {folder}/html; }}
            }}"""
        )
        program = self.program or executable("nginx", "nginx-light")
        command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
        with (folder / "nginx.out").open("wb") as output:
            self.process = subprocess.Popen(command, env=_environment(self.service), stdout=output, stderr=output)
        wait_until("nginx listens", lambda: accepts(self.port))
        wait_until("nginx has two workers", lambda: len(self.workers()) == 2)

    def workers(self) -> list[int]:
        """The pids of its workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"worker process" in _title(pid)]

    def requests(self) -> int:
        """How many requests the access log has."""
        return self.access_log.read_bytes().count(b"\n")

    def stop(self) -> int:
        """Ends it gracefully, and returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        return self.process.wait(20)


@contextmanager
def nginx(folder: Path) -> Iterator[Nginx]:
    """A running nginx."""
    server = Nginx(folder)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.terminate()
            server.process.wait(20)


class Redis:
    """redis-server, started by a shell that has the service's name in its environment, as service scripts do.

    Args:
        folder: For all that it writes.
        service: What its processes are called.
        program: Its executable, for one of the test's own.
    """

    function = "processCommand"

    def __init__(self, folder: Path, service: str, program: str = "") -> None:
        self.port = free_port()
        self.service = service
        self.program = program
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        redis = self.program or executable("redis-server", "redis-server")
        command = f"'{redis}' --bind 127.0.0.1 --port {self.port} --save '' --appendonly no --dir '{self._folder}'; exit $?"
        with (self._folder / "redis.out").open("wb") as output:
            self.process = subprocess.Popen(
                ["sh", "-c", command], env=clean_environment({"CORAL_SERVICE": self.service}), stdout=output, stderr=output
            )
        wait_until("redis-server listens", lambda: accepts(self.port))

    def pid(self) -> int:
        """Of the server itself."""
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def ask(self, *words: str) -> bytes:
        """One command on a connection of its own, and the bulk string it answers with."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection, connection.makefile("rwb") as wire:
            wire.write(b"*%d\r\n" % len(words))
            for word in words:
                wire.write(b"$%d\r\n%s\r\n" % (len(word), word.encode()))
            wire.flush()
            header = wire.readline()
            return wire.read(int(header[1:])) if header.startswith(b"$") else header

    def commands(self) -> int:
        """How many commands the server has processed; the one that asks is not yet among them."""
        return sum(int(calls) for calls in re.findall(rb"cmdstat_\S+:calls=(\d+)", self.ask("INFO", "commandstats")))

    def stop(self) -> int:
        """Ends it gracefully, and returns its exit code."""
        assert self.process is not None
        os.kill(self.pid(), signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def redis(folder: Path, service: str) -> Iterator[Redis]:
    """A running redis-server."""
    server = Redis(folder, service)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


class PostgreSQL:
    """A PostgreSQL cluster of its own, run by user ``postgres``, that logs every statement it executes.

    Args:
        folder: For all that it writes.
        service: What its processes are called.
        program: Its executable, for one of the test's own. PostgreSQL finds its files from where its program lies, so that
            this one is mounted over the installed one, for its processes alone.
    """

    function = "PortalRun"

    def __init__(self, folder: Path, service: str = "", program: str = "") -> None:
        self.service = service
        self.own_program = program
        self.port = free_port()
        self.folder = folder
        self.log = folder / "postgresql.log"
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program(name: str) -> str:
        """The path of a server program of the newest version that is installed."""
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
        if not found:
            raise RuntimeError(f"{name} is not installed: `make test` as root installs the package postgresql.")
        return str(found[-1])

    def _as_postgres(self, *command: str) -> list[str]:
        return [executable("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]

    def _mounted(self, over: str) -> list[str]:
        """What goes before a command so that the own program lies where the installed one does."""
        if not self.own_program:
            return []
        return [*UNSHARE, "--mount", "sh", "-c", 'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh", self.own_program, over]

    def start(self) -> None:
        """Makes the cluster, starts it, fills pgbench's tables, and waits until all of that is done."""
        self.folder.chmod(0o755)
        shutil.chown(self.folder, "postgres", "postgres")
        data = self.folder / "data"
        run(*self._as_postgres(self.program("initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-N"))
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "log_statement": "all",
            "log_line_prefix": "",
            "autovacuum": "off",
            "fsync": "off",
        }
        command = [self.program("postgres"), "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*self._mounted(command[0]), *self._as_postgres(*command)],
                env=_environment(self.service),
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        wait_until("PostgreSQL accepts connections", lambda: b"ready to accept connections" in self.log.read_bytes())
        self.bench("-i", "-s", "1", "-q")

    def bench(self, *options: str) -> str:
        """Runs pgbench against it."""
        return run(
            executable("pgbench", "postgresql"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "postgres",
            *options,
            "postgres",
        )

    def statements(self) -> int:
        """How many statements the log has: one for every portal that was run."""
        return len(re.findall(rb"^LOG:  (?:statement|execute [^:]*): ", self.log.read_bytes(), re.MULTILINE))

    def stop(self) -> int:
        """Ends it gracefully, and returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@contextmanager
def postgresql(folder: Path, service: str = "") -> Iterator[PostgreSQL]:
    """A running PostgreSQL, called ``service`` if that is not empty."""
    server = PostgreSQL(folder, service)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
