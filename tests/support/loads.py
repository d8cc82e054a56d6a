"""Real programs at work whose answers are known, so that it shows when one is different.

Each runs a copy of its program: breakpoints are in files, and other processes of the host run the installed one.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from support import servers
from support.cli import clean_environment
from support.stack import free_port
from support.target import unique_service


class WrongAnswer(AssertionError):
    """A program answered otherwise than it did before anything was attached."""


class Load(Protocol):
    """One program at work.

    Attributes:
        name: Of the program.
        service: What its processes are called.
        image: The copy that runs, or that of the library whose functions are looked at.
        library: Base name of that library; empty for the program.
    """

    name: str
    service: str
    image: Path
    library: str

    def pids(self) -> list[int]:
        """Its processes, those that live as long as it does first."""
        ...

    def work(self, seconds: float) -> int:
        """Lets it work, and returns how many units it did.

        Blocking.

        Raises:
            WrongAnswer: It did something wrong.
        """
        ...

    def stop(self) -> int:
        """Ends it, and returns its exit code."""
        ...


def _copied(program: str, folder: Path, name: str = "") -> Path:
    copy = folder / (name or Path(program).name)
    shutil.copy2(Path(program).resolve(), copy)
    copy.chmod(0o755)
    return copy


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise WrongAnswer(what)


def _for(seconds: float, once: Callable[[], int]) -> int:
    """Does something again and again for a time, at least once."""
    deadline, done = time.monotonic() + seconds, 0
    while True:
        done += once()
        if time.monotonic() >= deadline:
            return done


@dataclass(kw_only=True)
class NginxLoad:
    """nginx with two workers, asked by ab for a page and by hand for a file whose content is compared."""

    server: servers.Nginx
    service: str
    image: Path
    name: str = "nginx"
    library: str = ""

    def __post_init__(self) -> None:
        self._digest = self._fetch()

    def _fetch(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/large", timeout=30) as answer:
            return hashlib.sha256(answer.read()).hexdigest()

    def pids(self) -> list[int]:
        """See ``Load``."""
        assert self.server.process is not None
        return [self.server.process.pid, *self.server.workers()]

    def work(self, seconds: float) -> int:
        """See ``Load``."""
        ab = servers.executable("ab", "apache2-utils")

        def once() -> int:
            report = servers.run(ab, "-q", "-n", "400", "-c", "8", f"http://127.0.0.1:{self.server.port}/index.html")
            _require("Failed requests:        0" in report, f"ab counts failures: {report}")
            _require("Complete requests:      400" in report, f"ab did not end: {report}")
            _require(self._fetch() == self._digest, "the file's content is another")
            return 401

        return _for(seconds, once)

    def stop(self) -> int:
        """See ``Load``."""
        return self.server.stop()


@dataclass(kw_only=True)
class RedisLoad:
    """redis-server under redis-benchmark, and a fixed script of commands whose answers are compared."""

    server: servers.Redis
    service: str
    image: Path
    name: str = "redis"
    library: str = ""

    def __post_init__(self) -> None:
        self._digest = self._script()

    def _script(self) -> str:
        """A digest of the answers to commands of every kind, which leave nothing behind."""
        commands = [
            ["DEL", "s", "l", "h", "z", "x", "b"],
            *(["SET", "s", f"value {i}"] for i in range(5)),
            *(["APPEND", "s", "more"] for _ in range(5)),
            *(["RPUSH", "l", *map(str, range(i, i + 9))] for i in range(20)),
            ["LRANGE", "l", "0", "-1"],
            ["SORT", "l", "DESC"],
            *(["HSET", "h", f"f{i}", str(i * i)] for i in range(200)),
            ["HGETALL", "h"],
            *(["ZADD", "z", str(i * 37 % 101), f"m{i}"] for i in range(150)),
            ["ZRANGE", "z", "0", "-1", "WITHSCORES"],
            ["PFADD", "x", "a", "b", "c"],
            ["PFCOUNT", "x"],
            ["SETBIT", "b", "1000", "1"],
            ["BITCOUNT", "b"],
            ["EVAL", "local t = 0 for i = 1, 100 do t = t + i end return t", "0"],
            ["DEL", "s", "l", "h", "z", "x", "b"],
            ["PING"],
        ]
        digest = hashlib.sha256()
        with socket.create_connection(("127.0.0.1", self.server.port), 30) as connection:
            for words in commands:
                parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)]
                connection.sendall(b"".join(parts))
            received = b""
            while not received.endswith(b"+PONG\r\n"):
                chunk = connection.recv(1 << 16)
                _require(bool(chunk), "redis closed the connection")
                received += chunk
            digest.update(received)
        return digest.hexdigest()

    def pids(self) -> list[int]:
        """See ``Load``."""
        return [self.server.pid()]

    def work(self, seconds: float) -> int:
        """See ``Load``."""
        benchmark = servers.executable("redis-benchmark", "redis-tools")
        kinds = "ping,set,get,incr,lpush,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"

        def once() -> int:
            servers.run(benchmark, "-p", str(self.server.port), "-q", "-n", "200", "-c", "8", "-t", kinds)
            _require(self._script() == self._digest, "redis answers a fixed script otherwise")
            return 200 * 14

        return _for(seconds, once)

    def stop(self) -> int:
        """See ``Load``."""
        return self.server.stop()


_LASTING = (b"checkpointer", b"background writer", b"walwriter", b"autovacuum launcher", b"logical replication launcher")


@dataclass(kw_only=True)
class PostgreSQLLoad:
    """PostgreSQL under pgbench, whose transactions keep four sums equal, and a query whose result is compared."""

    server: servers.PostgreSQL
    service: str
    image: Path
    name: str = "postgres"
    library: str = ""

    def __post_init__(self) -> None:
        self._done = 0
        self._digest = self._query(_QUERY)

    def _query(self, sql: str) -> str:
        place = ("-h", "127.0.0.1", "-p", str(self.server.port), "-U", "postgres")
        return servers.run(servers.executable("psql", "postgresql-client"), *place, "-XAtq", "-c", sql, "postgres").strip()

    def pids(self) -> list[int]:
        """See ``Load``."""
        assert self.server.process is not None
        pid = self.server.process.pid
        children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [pid, *(child for child in children if self._lasts(child))]

    def _lasts(self, pid: int) -> bool:
        """Whether a child is there for as long as the server, by its title: backends and workers go with what they did."""
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return any(name in title for name in _LASTING)

    def work(self, seconds: float) -> int:
        """See ``Load``."""

        def once() -> int:
            report = self.server.bench(
                "-n", "-c", "4", "-t", "25", "-M", ("simple", "extended", "prepared")[self._done // 100 % 3]
            )
            _require("number of transactions actually processed: 100/100" in report, f"pgbench did not end: {report}")
            self._done += 100
            sums = self._query(_SUMS).split("|")
            _require(len(set(sums[:4])) == 1, f"the sums of the tables differ: {sums}")
            _require(int(sums[4]) == self._done, f"{sums[4]} rows of {self._done} transactions")
            _require(self._query(_QUERY) == self._digest, "a query has another result")
            return 102

        return _for(seconds, once)

    def stop(self) -> int:
        """See ``Load``."""
        return self.server.stop()


_SUMS = """
    SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
           (SELECT sum(tbalance) FROM pgbench_tellers), coalesce((SELECT sum(delta) FROM pgbench_history), 0),
           (SELECT count(*) FROM pgbench_history)"""
_QUERY = r"""
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 300)
    SELECT md5(string_agg(format('%s %s %s', n, kind, text), ',' ORDER BY kind, n)) FROM (
      SELECT n, n % 7 AS kind, concat(regexp_replace(to_char(n * 1.5, '999.99'), '\s+', '_'), upper(md5(n::text)),
             rank() OVER (PARTITION BY n % 7 ORDER BY md5(n::text)), jsonb_build_object('n', n, 'a', array[n]) #>> '{a,0}',
             to_tsvector('english', 'the quick foxes ' || n), date '2020-01-01' + n) AS text
      FROM numbers) AS made"""


@dataclass(kw_only=True)
class CaddyLoad:
    """Caddy serving files, asked by ab and by hand."""

    process: subprocess.Popen[bytes]
    port: int
    service: str
    image: Path
    name: str = "caddy"
    library: str = ""
    _digest: str = ""

    def begin(self) -> None:
        """Takes note of the right answer."""
        self._digest = self._fetch()

    def _fetch(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/large", timeout=60) as answer:
            return hashlib.sha256(answer.read()).hexdigest()

    def pids(self) -> list[int]:
        """See ``Load``."""
        return [self.process.pid]

    def work(self, seconds: float) -> int:
        """See ``Load``."""
        ab = servers.executable("ab", "apache2-utils")

        def once() -> int:
            report = servers.run(ab, "-q", "-n", "100", "-c", "4", f"http://127.0.0.1:{self.port}/index.html")
            _require("Failed requests:        0" in report, f"ab counts failures: {report}")
            _require("Complete requests:      100" in report, f"ab did not end: {report}")
            _require(self._fetch() == self._digest, "the file's content is another")
            return 101

        return _for(seconds, once)

    def stop(self) -> int:
        """See ``Load``."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def nginx(folder: Path) -> Iterator[NginxLoad]:
    """A running nginx."""
    service = unique_service("nginx")
    # nginx writes its title over its environment, but what its program is called stays.
    image = _copied(servers.executable("nginx", "nginx-light"), folder, service)
    server = servers.Nginx(folder, service, str(image))
    with _stopped(lambda: server.process, server.stop):
        server.start()
        _large(folder / "html" / "large")
        yield NginxLoad(server=server, service=service, image=image)


@contextmanager
def redis(folder: Path) -> Iterator[RedisLoad]:
    """A running redis-server."""
    image = _copied(servers.executable("redis-server", "redis-server"), folder)
    service = unique_service("redis")
    server = servers.Redis(folder, service, str(image))
    with _stopped(lambda: server.process, server.stop):
        server.start()
        yield RedisLoad(server=server, service=service, image=image)


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQLLoad]:
    """A running PostgreSQL."""
    image = _copied(servers.PostgreSQL.program("postgres"), folder)
    service = unique_service("postgres")
    server = servers.PostgreSQL(folder, service, str(image))
    with _stopped(lambda: server.process, server.stop):
        server.start()
        yield PostgreSQLLoad(server=server, service=service, image=image)


@contextmanager
def caddy(folder: Path, program: Path) -> Iterator[CaddyLoad]:
    """A running Caddy.

    Args:
        folder: For all that it reads and writes.
        program: Its executable, which is copied.
    """
    image = folder / "caddy"
    shutil.copy2(program, image)
    site = folder / "site"
    site.mkdir()
    (site / "index.html").write_text("hello\n")
    _large(site / "large")
    service, port = unique_service("caddy"), free_port()
    environment = clean_environment({"CORAL_SERVICE": service, "HOME": str(folder), "XDG_DATA_HOME": str(folder)})
    with (folder / "caddy.out").open("wb") as output:
        command = [str(image), "file-server", "--listen", f"127.0.0.1:{port}", "--root", str(site)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    load = CaddyLoad(process=process, port=port, service=service, image=image)
    with _stopped(lambda: process, load.stop):
        servers.wait_until("caddy listens", lambda: servers.accepts(port), 60)
        load.begin()
        yield load


def _large(path: Path) -> None:
    """A file of 300 kB in which every line is another."""
    path.write_text("".join(f"{number} {hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(4_300)))


@contextmanager
def _stopped(process: Callable[[], subprocess.Popen[bytes] | None], stop: Callable[[], int]) -> Iterator[None]:
    """Ends a process that still runs at the end."""
    try:
        yield
    finally:
        running = process()
        if running is not None and running.poll() is None:
            stop()
