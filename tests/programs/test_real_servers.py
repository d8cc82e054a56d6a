"""nginx, Redis, PostgreSQL and a Go web server under load: not one call off, and the servers as if nobody had looked."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import build, servers
from support.observe import assert_stored_once, counted, every_call_stored, ledger_faults
from support.stack import Stack
from support.target import running, unique_service
from support.text import changed_text

pytestmark = pytest.mark.programs


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach: servers give up root, and pytest's own folders are private."""
    with tempfile.TemporaryDirectory(prefix="coral-server-") as path:
        yield Path(path)


def assert_whole(stack: Stack, document: dict[str, Any], calls: int) -> None:
    """Exactly so many calls, all stored, each once, and the ledger balances."""
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(calls)
    assert_stored_once(stack, document)


def pids(document: dict[str, Any], status: str) -> set[int]:
    """The instances of that status."""
    return {one["pid"] for part in document["collectors"] for one in part["instances"] if one["status"] == status}


def test_nginx(stack: Stack, folder: Path) -> None:
    """20,000 requests to two workers are 20,000 calls of ngx_http_process_request, as many as the access log has."""
    ab = servers.executable("ab", "apache2-utils")
    with servers.nginx(folder) as nginx:
        session_id = stack.cli.attach("nginx", nginx.function)["session_id"]
        report = servers.run(ab, "-q", "-n", "20000", "-c", "16", f"http://127.0.0.1:{nginx.port}/index.html")
        servers.wait_until("the log is written", lambda: nginx.requests() >= 20_000)
        document = stack.cli.stop(session_id)
        workers = nginx.workers()
        assert len(workers) == 2
        assert [changed_text(pid) for pid in workers] == [[], []]
        assert "Failed requests:        0" in report
        assert nginx.requests() == 20_000
        assert nginx.stop() == 0
    assert_whole(stack, document, 20_000)
    assert set(workers) <= pids(document, "detached")
    rows = stack.cli.query(
        f"SELECT DISTINCT pid FROM uprobe_events WHERE collector_id = '{document['collectors'][0]['collector_id']}'"
    )
    assert {row["pid"] for row in rows} <= set(workers)


def test_nginx_workers_started_during_the_session(stack: Stack, folder: Path) -> None:
    """After a reload, the requests of the new workers count like those of the old ones."""
    ab = servers.executable("ab", "apache2-utils")
    load = (ab, "-q", "-n", "2000", "-c", "8")
    with servers.nginx(folder) as nginx:
        url = f"http://127.0.0.1:{nginx.port}/index.html"
        session_id = stack.cli.attach("nginx", nginx.function)["session_id"]
        servers.run(*load, url)
        before = set(nginx.workers())
        assert nginx.process is not None
        nginx.process.send_signal(1)  # SIGHUP: new workers take over
        servers.wait_until("new workers", lambda: len(nginx.workers()) == 2 and not before & set(nginx.workers()))
        servers.run(*load, "-k", url)
        servers.wait_until("the log is written", lambda: nginx.requests() >= 4000)
        document = stack.cli.stop(session_id)
        assert nginx.requests() == 4000
        assert nginx.stop() == 0
    assert_whole(stack, document, 4000)


def test_redis(stack: Stack, folder: Path) -> None:
    """Every command that INFO commandstats counts is one call of processCommand."""
    benchmark = servers.executable("redis-benchmark", "redis-tools")
    with servers.redis(folder, unique_service("cache")) as redis:
        before = redis.commands()
        session_id = stack.cli.attach(redis.service, redis.function)["session_id"]
        servers.run(benchmark, "-p", str(redis.port), "-q", "-n", "10000", "-c", "20", "-t", "set,get,lpush")
        document = stack.cli.stop(session_id)
        assert changed_text(redis.pid()) == []
        # the INFO that asked first has been counted since then, and was processed before the probe
        commands = redis.commands() - before - 1
        pid = redis.pid()
        assert redis.stop() == 0
    assert commands >= 30_000
    assert_whole(stack, document, commands)
    assert pids(document, "detached") == {pid}


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_postgresql(stack: Stack, cluster: servers.PostgreSQL, protocol: str) -> None:
    """Pgbench's backends, forked after the attach, run as many portals as the statement log has statements."""
    before = cluster.statements()
    session_id = stack.cli.attach(cluster.service, cluster.function)["session_id"]
    report = cluster.bench("-n", "-c", "4", "-t", "150", "-M", protocol)
    document = stack.cli.stop(session_id)
    statements = cluster.statements() - before
    assert "number of transactions actually processed: 600/600" in report
    # a transaction is BEGIN, three UPDATEs, SELECT, INSERT, END; pgbench asks for its tables first
    assert 600 * 7 <= statements <= 600 * 7 + 10
    assert_whole(stack, document, statements)
    assert cluster.process is not None
    assert changed_text(cluster.process.pid) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.PostgreSQL]:
    """One PostgreSQL for all protocols, by a name of its own: initdb of another one runs a lot of the same program."""
    service = unique_service("postgres")
    with tempfile.TemporaryDirectory(prefix="coral-server-") as path, servers.postgresql(Path(path), service) as server:
        yield server
        assert server.stop() == 0


def test_go_web_server(stack: Stack) -> None:
    """Every request of four clients is one call of serverHandler.ServeHTTP, and the slow ones are the handler's."""
    program = build.go_program("web")
    with running(program) as target:
        session_id = stack.cli.attach(target.service, "net/http.serverHandler.ServeHTTP")["session_id"]
        client = [str(program), "-load", target.ready["address"], "-clients", "4", "-requests", "1000"]
        answered = json.loads(subprocess.run(client, check=True, capture_output=True, timeout=60).stdout)["answered"]
        handled = target.run()["calls"]
        document = stack.cli.stop(session_id)
        assert changed_text(target.pid) == []
        assert target.finish() == 0
    assert (answered, handled) == (4000, 4000)
    assert_whole(stack, document, 4000)
    slow = [event for event in document["slowest"] if event["duration_ns"] >= 2_000_000]
    assert len(slow) == len(document["slowest"])
