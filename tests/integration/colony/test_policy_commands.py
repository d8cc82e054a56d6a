"""``coral policy`` and ``coral approval`` on a colony with credentials: what they print, and how they exit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.secured_colony import secured_colony_in_thread

from coral.__main__ import COMMANDS, GROUPS
from coral.cli.entry import run

PROD = """@id("prod-four-eyes")
@description("Production takes two.")
@approval("production needs a second pair of eyes")
permit (principal in Role::"operator", action == Action::"AttachUprobe", resource)
when { resource.environment == "prod" };
"""


@dataclass(slots=True)
class Shell:
    """A command line that asks the colony as whichever user."""

    tokens: dict[str, str]
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, user: str, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command line of that user."""
        self.monkeypatch.setenv("CORAL_TOKEN", self.tokens[user])
        code = run(arguments, commands=COMMANDS, groups=GROUPS)
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def coral(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """A colony in production with one policy of its own, and its users."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "prod.cedar").write_text(PROD)
    users = {"ann": "operator", "vic": "viewer", "adm": "admin"}
    with secured_colony_in_thread(tmp_path / "state", users=users, policy_dir=str(folder), environment="prod") as (
        colony,
        tokens,
    ):
        monkeypatch.setenv("CORAL_COLONY", colony.address)
        monkeypatch.setenv("CORAL_CA", str(tmp_path / "state" / "ca.pem"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        capsys.readouterr()
        yield Shell(tokens, monkeypatch, capsys)
    monkeypatch.undo()
    time.tzset()


def test_an_approval_on_the_command_line(coral: Shell) -> None:
    """Exit 7 with what to do; listed, approved by somebody else, for that very request; another has to be asked anew."""
    attach = ("debug", "attach", "checkout", "-f", "main.Pay", "--reason", "slow", "--no-wait")
    code, _, err = coral("ann", *attach, "-o", "json")
    error = json.loads(err.splitlines()[-1])["error"]
    approval_id = error["details"]["approval_id"]
    assert (code, error["code"], error["details"]["policy"]) == (7, "PERMISSION_DENIED", "prod-four-eyes")
    assert error["hint"] == f"Once it is approved (`coral approval approve {approval_id}`), run the same command again."

    code, out, _ = coral("vic", "approval", "list")
    assert code == 0
    assert out.splitlines()[0].split() == ["ID", "STATE", "WHO", "WHAT", "FOR", "UNTIL", "REASON", "POLICY"]
    assert out.splitlines()[1].split()[:6] == [approval_id, "pending", "ann", "AttachUprobe", "checkout", "main.Pay"]

    code, _, err = coral("ann", "approval", "approve", approval_id)
    assert (code, err.splitlines()[0]) == (7, f"Error: ann may not ApproveAttach: request {approval_id} is their own.")
    code, _, err = coral("vic", "approval", "deny", approval_id)
    assert (code, err.splitlines()[0]) == (
        7,
        "Error: No policy permits vic (viewer) to do ApproveAttach on service 'checkout'.",
    )

    code, out, _ = coral("adm", "approval", "approve", approval_id, "--reason", "go on", "-o", "json")
    decided = json.loads(out)
    assert (code, decided["state"], decided["decided_by"], decided["comment"]) == (0, "approved", "adm", "go on")
    for _ in range(2):  # an attach that fails leaves it as it was
        code, _, err = coral("ann", *attach)
        assert (code, err.splitlines()[0]) == (5, "Error: No agent is online.")
    code, _, _ = coral("ann", *attach, "-d", "30s")
    assert code == 7
    code, out, _ = coral("vic", "approval", "list", "--all", "-o", "json")
    items = json.loads(out)["items"]
    assert (code, [item["state"] for item in items]) == (0, ["pending", "approved"])
    assert json.loads(items[1]["request"])["reason"] == "slow"


def test_explanations_on_the_command_line(coral: Shell) -> None:
    """A sentence and the policies that decided; the whole as JSON; about others for admins alone."""
    code, out, err = coral("ann", "policy", "explain", "AttachUprobe", "--service", "checkout", "-d", "5m")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == (
        "approval: ann (operator) may do AttachUprobe on service 'checkout' once somebody else has approved it: policy "
        "'prod-four-eyes' (prod.cedar:1) asks for that (production needs a second pair of eyes). Permitted by policy "
        "'operators-attach' (default.cedar:13), policy 'prod-four-eyes' (prod.cedar:1)."
    )
    assert [line.split()[0] for line in lines[2:]] == ["ID", "operators-attach", "prod-four-eyes"]
    code, out, _ = coral(
        "adm", "policy", "explain", "AttachUprobe", "--principal", "ann", "--service", "x", "--values", "-o", "json"
    )
    explained = json.loads(out)
    assert (code, explained["decision"], explained["roles"], explained["role"]) == (0, "approval", ["operator"], "operator")
    code, _, err = coral("vic", "policy", "explain", "ListAgents", "--role", "admin")
    assert (code, err.splitlines()[0]) == (7, "Error: No policy permits vic (viewer) to do ExplainPolicy.")
    code, _, err = coral("vic", "policy", "explain", "ListAgent")
    assert (code, err.splitlines()[1][:24]) == (2, "Did you mean ListAgents,")


def test_check_of_the_colony(coral: Shell, tmp_path: Path) -> None:
    """What is in force, and with exit 1 why what is in the folder is not."""
    code, out, err = coral("adm", "policy", "check")
    assert (code, out.splitlines()[-1].split()[:3]) == (0, ["prod-four-eyes", "permit", "prod.cedar:1"])
    assert err.endswith(f", from {tmp_path / 'policies'}.\n")
    (tmp_path / "policies" / "prod.cedar").write_text("permit (principal, actoin, resource);")
    code, _, err = coral("adm", "policy", "check")
    assert (code, err.splitlines()[-1]) == (1, "prod.cedar:1: found an invalid variable in the policy scope: actoin")
    code, out, _ = coral("adm", "policy", "check", "-o", "json")
    found = json.loads(out)
    assert (code, found["ok"], found["enforced"]) == (1, False, True)
