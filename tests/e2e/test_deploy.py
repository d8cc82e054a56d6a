"""The systemd units: known to systemd, scored as documented, and enough for what the daemons do."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import build, rpc
from support.build import ROOT
from support.cli import CORAL, Cli, clean_environment
from support.observe import counted, every_call_stored
from support.target import running
from support.text import changed_text
from support.unit_sandbox import SYSTEMD, capabilities, confined, directives

from coral.agent.privileges import NEEDED
from coral.config.settings import load_agent_settings, load_colony_settings

UNITS = ("coral-colony.service", "coral-agent.service")


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_knows_every_directive(unit: str, tmp_path: Path) -> None:
    """Nothing in a unit is misspelt, unknown or out of place: systemd would ignore it, and with it what it was to prevent."""
    text = re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", (SYSTEMD / unit).read_text(), flags=re.MULTILINE)
    (tmp_path / unit).write_text(text.replace("User=coral", "User=daemon").replace("Group=coral", "Group=daemon"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if unit in line] == []


@pytest.mark.parametrize("unit", UNITS)
def test_scores_are_those_of_the_documentation(unit: str) -> None:
    """What docs/security.md says of exposure is what systemd-analyze says, by the release that it names; none is above it."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(SYSTEMD / unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    score = float(re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)[-1])
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    documented = re.search(
        rf"^\| `{re.escape(unit)}` \| ([\d.]+) \(systemd (\d+)\)", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE
    )
    assert documented is not None
    if documented[2] == version:
        assert score == float(documented[1])
    else:
        assert score <= float(documented[1]) + 0.5


def test_the_agents_unit_leaves_what_it_needs_and_what_confines_its_readers() -> None:
    """Its bounding set is the seven capabilities that it keeps, and the five that it gives up once readers are confined."""
    confining = {"CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"}
    assert capabilities("coral-agent.service") == {*NEEDED, *confining}
    assert capabilities("coral-colony.service") == set()
    assert directives("coral-colony.service")["User"] == ["coral"]


def test_the_settings_that_come_with_the_units_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are valid, keep state where the units have it, and add nothing to the policy but what is commented out."""
    monkeypatch.delenv("CORAL_COLONY", raising=False)
    colony = load_colony_settings({}, ROOT / "deploy" / "etc" / "colony.yaml")
    agent = load_agent_settings({}, ROOT / "deploy" / "etc" / "agent.yaml")
    for unit, settings in zip(UNITS, (colony, agent), strict=True):
        assert directives(unit)["StateDirectory"] == [str(settings.state_dir.relative_to("/var/lib"))]
    assert (agent.deny, agent.allow_values) == ((), False)
    shown = tmp_path / "agent.yaml"
    shown.write_text(re.sub(r"^#(deny:|- )", r"\1", (ROOT / "deploy" / "etc" / "agent.yaml").read_text(), flags=re.MULTILINE))
    assert [rule.reason for rule in load_agent_settings({}, shown).deny] == [
        "card numbers pass through it",
        "passwords pass through it",
    ]


@contextmanager
def _daemon(unit: str, folder: Path, name: str, *options: str) -> Iterator[dict[str, Any]]:
    """A daemon under the restrictions of its unit; yields the address line of its log."""
    state_dir = folder / name
    state_dir.mkdir(mode=0o700)
    log = folder / f"{name}.log"
    command = [str(CORAL), name, "start", "--insecure", "--listen", "127.0.0.1:0", "--state-dir", str(state_dir), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            confined(unit, command, state_dir=state_dir), stdout=output, stderr=output, env=clean_environment()
        )
    try:
        yield _ready(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()


def _ready(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
        for facts in map(json.loads, lines):
            if facts["message"] in ("colony ready", "agent is ready"):
                return dict(facts)
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.kernel
def test_the_daemons_work_under_what_their_units_take(tmp_path: Path) -> None:
    """With the units' capabilities, system calls, memory and files alone: a program and a library are probed, every call is
    stored, and nothing stays behind.
    """
    with (
        _daemon(UNITS[0], tmp_path, "colony") as colony,
        _daemon(UNITS[1], tmp_path, "agent", "--colony", colony["listen"]) as agent,
        running(build.c_program("loop"), "--calls", 300) as target,
    ):
        rpc.wait_for_agent(colony["listen"], agent["agent_id"], "online")
        cli = Cli(colony["listen"])
        document = cli.attach(target.service, "work")
        library = cli.attach(target.service, "libc.so.6!malloc")
        assert target.run()["returned"] == 300
        assert counted(cli.stop(document["session_id"])["ledger"]) == every_call_stored(300)
        cli.stop(library["session_id"])
        assert changed_text(target.pid) == []
        assert cli.ok("debug", "info", target.service, "-f", "work").exit_code == 0
        assert _status(agent["pid"])["CapEff"] == _status(agent["pid"])["CapBnd"] == sum(1 << bit for bit in NEEDED.values())


def _status(pid: int) -> dict[str, int]:
    lines: Sequence[str] = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}
