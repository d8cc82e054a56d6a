"""The command line, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from support.build import ROOT

CORAL = ROOT / ".venv" / "bin" / "coral"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.stdout)

    def jsonl(self) -> list[dict[str, Any]]:
        """The documents on stdout, a line each."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def error(self) -> dict[str, Any]:
        """The error document on stderr: its last line."""
        return dict(json.loads(self.stderr.strip().splitlines()[-1])["error"])


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what would steer Coral from outside of the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CORAL_", "OTEL_"))}
    return {**kept, **(extra or {})}


class Cli:
    """Runs commands against one colony."""

    def __init__(self, colony: str) -> None:
        self.colony = colony

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [str(CORAL), *arguments, "--colony", self.colony]

    def run(self, *arguments: str, timeout_s: float = 60) -> Outcome:
        """Runs a command to its end, whatever that is."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env=clean_environment(),
            check=False,
        )
        return Outcome(exit_code=done.returncode, stdout=done.stdout.decode(), stderr=done.stderr.decode())

    def ok(self, *arguments: str, timeout_s: float = 60) -> Outcome:
        """Runs a command that has to succeed."""
        outcome = self.run(*arguments, timeout_s=timeout_s)
        assert outcome.exit_code == 0, (
            f"coral {' '.join(arguments)} exited {outcome.exit_code}\n{outcome.stdout}{outcome.stderr}"
        )
        return outcome

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a command that goes on; the caller ends it."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )

    def attach(self, service: str, function: str, *options: str, duration: str = "60s") -> dict[str, Any]:
        """Attaches, and returns the session document as soon as the session is active."""
        document: dict[str, Any] = self.ok(
            "debug", "attach", service, "-f", function, "-d", duration, "--no-wait", "-o", "json", *options
        ).json()
        assert document["status"] == "active", document
        return document

    def session(self, session_id: str) -> dict[str, Any]:
        """The session document as it is now."""
        document: dict[str, Any] = self.ok("debug", "session", "get", session_id, "-o", "json").json()
        return document

    def stop(self, session_id: str) -> dict[str, Any]:
        """Detaches, and returns the session document with its final ledger."""
        document: dict[str, Any] = self.ok("debug", "session", "stop", session_id, "-o", "json").json()
        return document

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """Every stored event of a session."""
        return self.ok("debug", "session", "events", session_id, "--limit", "0", "-o", "jsonl").jsonl()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a statement on the colony's tables."""
        items: list[dict[str, Any]] = self.ok("db", "query", sql, "-o", "json").json()["items"]
        return items
