"""Programs that are no servers at their own work: CPython, SQLite, git, ripgrep, each answering one script over and over."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import servers
from support.cli import clean_environment
from support.loads import WrongAnswer
from support.target import unique_service

_ROUND_S = 120

PYTHON = r"""
import collections, decimal, hashlib, itertools, json, pickle, random, re, struct, sys, zlib
class Node:
    __slots__ = ("left", "right", "value")
    def __init__(self, value):
        self.left = self.right = None
        self.value = value
def walk(node):
    if node is not None:
        yield from walk(node.left)
        yield node.value
        yield from walk(node.right)
def once():
    chance, root, seen = random.Random(7), None, collections.Counter()
    for number in (chance.randrange(10_000) for _ in range(300)):
        place, parent = root, None
        while place is not None:
            parent, place = place, place.left if number < place.value else place.right
        node = Node(number)
        if parent is None:
            root = node
        elif number < parent.value:
            parent.left = node
        else:
            parent.right = node
        seen[number % 17] += 1
    values = list(walk(root))
    try:
        values.index(-1)
    except ValueError as error:
        seen[str(error)] += 1
    text = " ".join(f"{value:05d}:{value ** 3:x}" for value in values)
    words = re.findall(r"(\d+):([0-9a-f]+)", text)
    data = {"values": values, "words": dict(words), "seen": sorted(map(str, seen.items())), "big": 3 ** 700 % 10 ** 40}
    again = json.loads(json.dumps(data, sort_keys=True))
    again = pickle.loads(pickle.dumps(again))
    packed = zlib.compress(struct.pack(f"<{len(values)}q", *values))
    total = sum(decimal.Decimal(value) / 7 for value in values[:50])
    pairs = sorted(itertools.islice(itertools.combinations(set(values), 2), 400), key=lambda pair: (pair[1], -pair[0]))
    frozen = frozenset(values) & set(range(0, 10_000, 3)) | {1}
    return hashlib.sha256(repr((again, packed, total, pairs, sorted(frozen), text.encode().hex()[:99])).encode()).hexdigest()
for line in sys.stdin:
    print(once(), "end", flush=True)
"""

SQL = r"""
CREATE TEMP TABLE t(id INTEGER PRIMARY KEY, name TEXT, amount REAL, data BLOB);
CREATE INDEX temp.t_name ON t(name);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
  INSERT INTO t SELECT i, printf('name %d', i * 37 % 101), i * 1.25, zeroblob(i % 9) FROM n;
UPDATE t SET amount = amount * 2, name = upper(name) WHERE id % 3 = 0;
DELETE FROM t WHERE id % 10 = 0;
SELECT name, count(*), sum(amount), group_concat(id), total(length(data)) FROM t GROUP BY name ORDER BY 2 DESC, 1 LIMIT 20;
SELECT a.id, b.id, hex(a.data) FROM t a JOIN t b ON a.name = b.name AND a.id < b.id ORDER BY 1, 2 LIMIT 30;
SELECT id, rank() OVER (PARTITION BY name ORDER BY amount DESC) FROM t ORDER BY id LIMIT 25;
SELECT json_group_array(json_object('i', id, 'n', name)) FROM (SELECT * FROM t WHERE name LIKE 'N%1%' ORDER BY id LIMIT 12);
SELECT substr(name, 2, 3), instr(name, ' '), replace(name, 'A', 'b'), date('2020-01-01', id || ' days') FROM t WHERE id < 6;
BEGIN; INSERT INTO t VALUES (1000, 'gone', 1, x'00ff'); ROLLBACK;
SELECT count(*), min(amount), max(name), avg(amount) FROM t;
EXPLAIN QUERY PLAN SELECT * FROM t WHERE name = 'x';
DROP TABLE t;
SELECT 'end';
"""


class ScriptedLoad:
    """A process that reads a script from its standard input and answers until a line that ends in ``end``. See ``Load``.

    Args:
        name: Of the program.
        command: Starts it.
        script: What it is told each time.
        image: The file whose functions are looked at: the program, or a library that it maps.
        library: Base name of that library; empty for the program.
        environment: On top of this process's.
        end: How its last line ends.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        script: str,
        image: Path,
        library: str = "",
        environment: Mapping[str, str] | None = None,
        end: bytes = b"end\n",
    ) -> None:
        self.name = name
        self.service = unique_service(name)
        self.image = image
        self.library = library
        self._script = script.encode()
        self._end = end
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment({"CORAL_SERVICE": self.service, **(environment or {})}),
        )
        self._digest = self._once()

    def _once(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(self._script)
        self.process.stdin.flush()
        deadline, answer = time.monotonic() + _ROUND_S, b""
        while not answer.endswith(self._end):
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise WrongAnswer(f"{self.name} did not answer within {_ROUND_S} s: {answer[-200:]!r}")
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise WrongAnswer(f"{self.name} ended with {self.process.wait()}: {answer[-200:]!r}")
            answer += chunk
        return hashlib.sha256(answer).hexdigest()

    def pids(self) -> list[int]:
        """See ``Load``."""
        return [self.process.pid]

    def work(self, seconds: float) -> int:
        """See ``Load``."""
        deadline, done = time.monotonic() + seconds, 0
        while not done or time.monotonic() < deadline:
            if self._once() != self._digest:
                raise WrongAnswer(f"{self.name} answers its script otherwise")
            done += 1
        return done

    def stop(self) -> int:
        """See ``Load``."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(60)


@contextmanager
def _running(load: ScriptedLoad) -> Iterator[ScriptedLoad]:
    try:
        yield load
    finally:
        if load.process.poll() is None:
            load.process.kill()
            load.process.wait()


@contextmanager
def cpython(folder: Path) -> Iterator[ScriptedLoad]:
    """The system's Python, at work on trees, text, numbers and containers."""
    program = Path(servers.executable("/usr/bin/python3", "python3")).resolve()
    image = folder / program.name
    shutil.copy2(program, image)
    home = {"PYTHONHOME": "/usr", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    with _running(
        ScriptedLoad(name="cpython", command=[str(image), "-c", PYTHON], script="go\n", image=image, environment=home)
    ) as load:
        yield load


@contextmanager
def sqlite(folder: Path) -> Iterator[ScriptedLoad]:
    """SQLite's shell, whose functions are those of its library."""
    program = servers.executable("sqlite3", "sqlite3")
    with _running(_with_library(folder, "sqlite", [program, "-batch", ":memory:"], SQL, "libsqlite3.so.0")) as load:
        yield load


@contextmanager
def git(folder: Path) -> Iterator[ScriptedLoad]:
    """``git cat-file`` on a packed repository. Debian's git names no functions; those of zlib are looked at."""
    program = servers.executable("git", "git")
    tree = folder / "tree"
    tree.mkdir()
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"]

    def run(*words: str) -> None:
        subprocess.run(
            [program, "-C", str(tree), *settings, *words], check=True, capture_output=True, env={**os.environ, **own}
        )

    run("init", "-q", "-b", "main")
    for version in range(12):
        for number in range(6):
            text = "".join(f"line {line} of {number} {'changed' * (line % 12 == version)}\n" for line in range(400))
            (tree / f"file{number}").write_text(text)
        run("add", ".")
        run("commit", "-q", "-m", f"version {version}")
    run("repack", "-adfq")
    asked = [f"main~{back}:file{number}" for back in range(12) for number in range(6)]
    load = _with_library(
        folder,
        "git",
        [program, "-C", str(tree), "cat-file", "--batch"],
        "\n".join([*asked, "no-such-end", ""]),
        "libz.so.1",
        end=b"no-such-end missing\n",
    )
    with _running(load):
        yield load


@contextmanager
def ripgrep(folder: Path) -> Iterator[ScriptedLoad]:
    """``rg -P`` on its standard input. Debian's ripgrep names no functions; those of PCRE2 are looked at."""
    program = servers.executable("rg", "ripgrep")
    text = "".join(f"{number} the {'quick' if number % 3 else 'slow'} fox {number * number}\n" for number in range(500))
    command = [program, "-P", "--line-buffered", "-N", r"(?<=quick )fox (\d)\d*\1$|end", "-"]
    with _running(_with_library(folder, "ripgrep", command, f"{text}the end\n", "libpcre2-8.so.0")) as load:
        yield load


def _with_library(
    folder: Path, name: str, command: Sequence[str], script: str, library: str, *, end: bytes = b"end\n"
) -> ScriptedLoad:
    """A program that maps a copy of a library."""
    own = folder / "lib"
    own.mkdir()
    image = own / library
    shutil.copy2(Path("/usr/lib/x86_64-linux-gnu", library).resolve(), image)
    path = {"LD_LIBRARY_PATH": str(own)}
    return ScriptedLoad(name=name, command=command, script=script, image=image, library=library, environment=path, end=end)
