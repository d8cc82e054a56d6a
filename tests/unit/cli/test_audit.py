"""``coral audit`` and ``coral data`` as command lines: what they print, and how they exit."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.audit_chain import chain
from support.running_colony import running_colony

from coral.__main__ import COMMANDS, GROUPS
from coral.cli.entry import run
from coral.trust.checkpoint import CheckpointKey

KEY = CheckpointKey.ephemeral()
LINES = chain(250, KEY)
Capture = pytest.CaptureFixture[str]


def coral(*arguments: str | Path) -> int:
    """Runs a command line."""
    return run([str(argument) for argument in arguments], commands=COMMANDS, groups=GROUPS)


def _written(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The public key of the colony that wrote LINES."""
    path = tmp_path / "kept.pub"
    path.write_bytes(KEY.public_pem())
    return path


def test_a_file_is_checked_without_a_colony(tmp_path: Path, key: Path, capsys: Capture) -> None:
    """A whole log exits 0, and says what could not be told; one with a record gone exits 1 and names it."""
    path = _written(tmp_path / "log", LINES)
    assert coral("audit", "verify", path) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: 250 records, 1 to 250, with 2 signed checkpoints: all as they were written.\n"
    assert err.splitlines() == [
        "Signatures are not checked: give the colony's audit.pub with --public-key.",
        "Whether records are missing at the end cannot be told: give a later checkpoint with --checkpoint.",
    ]
    kept = _written(tmp_path / "checkpoint", [LINES[199]])
    _written(path, LINES[:150] + LINES[151:])
    assert coral("audit", "verify", path, "--public-key", key, "--checkpoint", kept) == 1
    assert capsys.readouterr().out == f"{path}: REMOVED: Removed: record 151.\n"
    _written(path, LINES[:180])
    assert coral("audit", "verify", path, "--public-key", key) == 0
    capsys.readouterr()
    assert coral("audit", "verify", path, "--public-key", key, "--checkpoint", kept, "-o", "json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "copies": {
            str(path): {
                "records": 180, "first": 1, "last": 180, "checkpoints": 1,
                "problem": {
                    "sequence": 181, "kind": "truncated",
                    "message": "Cut off at the end: record 181 is missing, and record 200 was written.",
                },
            }
        },
        "checkpoint": None,
    }  # fmt: skip


def test_what_cannot_be_checked_is_refused(tmp_path: Path, key: Path, capsys: Capture) -> None:
    """Files that are not what they are given as are an error of the command line, not of the log."""
    path = _written(tmp_path / "log", LINES)
    other = tmp_path / "other.pub"
    other.write_bytes(CheckpointKey.ephemeral().public_pem())
    for arguments, words in (
        ([tmp_path / "nothing"], "cannot be read"),
        ([path, "--public-key", path], "holds no public key"),
        ([path, "--checkpoint", path], "worth what its signature is"),
        ([path, "--public-key", key, "--checkpoint", path], "holds no checkpoint"),
        ([path, "--public-key", key, "--checkpoint", tmp_path / "nothing"], "cannot be read"),
        ([tmp_path], "cannot be read"),
    ):
        assert coral("audit", "verify", *arguments) == 2
        assert words in capsys.readouterr().err
    assert coral("audit", "verify", "--public-key", key) == 2
    assert coral("audit", "verify", path, "--public-key", other) == 1
    assert "FORGED: Checkpoint 100 was not written by the colony" in capsys.readouterr().out


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state directory of a colony that CORAL_COLONY names."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = running_colony(tmp_path / "state")
    monkeypatch.setenv("CORAL_COLONY", asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(20))
    try:
        yield tmp_path / "state"
    finally:
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_the_log_of_a_colony(state_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    """Queried, exported, verified there and here; a line that somebody touched is named; nothing to purge is said."""
    assert coral("service", "list") == 0
    capsys.readouterr()
    assert coral("audit", "query", "--action", "ListServices", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["items", "next_page_token"]
    assert [item["outcome"] for item in document["items"]] == ["ok", "started"]
    lines = (state_dir / "audit.jsonl").read_text().splitlines()
    assert document["items"][::-1] == [json.loads(line) for line in lines[:2]]
    assert coral("audit", "query", "--limit", "2") == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split() == ["NUMBER", "TIME", "WHO", "FROM", "ACTION", "ON", "SESSION", "DECISION", "OUTCOME", "REASON"]
    assert [row.split()[0] for row in rows] == ["4", "3"]
    exported = tmp_path / "exported"
    assert coral("audit", "export", "-o", exported) == 0
    assert exported.stat().st_mode & 0o777 == 0o600
    assert coral("audit", "export", "-o", exported) == 1
    assert "Name a new file" in capsys.readouterr().err
    assert coral("audit", "verify", exported, "--public-key", state_dir / "audit.pub") == 0
    assert coral("audit", "verify") == 0
    assert "table: " in capsys.readouterr().out
    assert coral("data", "purge") == 2
    assert coral("data", "purge", "--before", "1h", "--dry-run", "-o", "json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"dry_run": True, "sessions": 0, "events": 0, "freed_bytes": 0, "items": []}
    assert err.endswith("0 sessions with 0 events would be removed.\n")
    content = (state_dir / "audit.jsonl").read_bytes()
    (state_dir / "audit.jsonl").write_bytes(content.replace(b"ListServices", b"ListServicez", 1))
    assert coral("audit", "verify") == 1
    table, copy = capsys.readouterr().out.splitlines()
    assert table.endswith("all as they were written.")
    assert copy == "copy: CHANGED: Record 1 was changed: its content does not fit its hash."
    assert coral("audit", "verify", state_dir / "audit.jsonl") == 1
    (state_dir / "audit.jsonl").write_bytes(content)
