"""``coral policy check FILE`` and ``coral policy test``: what they print, and how they exit. No colony is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coral.__main__ import COMMANDS, GROUPS
from coral.cli.entry import run

PROD = """
@id("prod-four-eyes")
@approval("production needs a second pair of eyes")
permit (principal in Role::"operator", action == Action::"AttachUprobe", resource)
when { resource.environment == "prod" };
"""
CASES = """
policies: [prod.cedar]
cases:
  - name: production takes two
    principal: {name: ann, roles: [operator]}
    action: AttachUprobe
    resource: {service: web, environment: prod}
    expect: approval
    policy: prod-four-eyes
  - principal: {name: vic, roles: [viewer]}
    action: AttachUprobe
    resource: {service: web}
    expect: EXPECTED
"""
Capture = pytest.CaptureFixture[str]


def coral(*arguments: str | Path) -> int:
    """Runs a command line."""
    return run([str(argument) for argument in arguments], commands=COMMANDS, groups=GROUPS)


@pytest.fixture
def prod(tmp_path: Path) -> Path:
    """A file of policies in order."""
    path = tmp_path / "prod.cedar"
    path.write_text(PROD)
    return path


def test_check_of_files_in_order(prod: Path, capsys: Capture) -> None:
    """It says how many there are; a folder stands for its files."""
    assert coral("policy", "check", prod) == 0
    assert capsys.readouterr() == ("1 policy is in order.\n", "")
    assert coral("policy", "check", prod.parent, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "policies": ["prod-four-eyes"], "faults": []}


def test_check_of_broken_files(prod: Path, capsys: Capture) -> None:
    """Every fault is a line with file and line, as compilers write them; exit 1."""
    other = prod.parent / "other.cedar"
    other.write_text(f"\npermit (principal, actoin, resource);{PROD}")
    assert coral("policy", "check", prod, other) == 1
    assert capsys.readouterr().out == (
        f"{other}:2: found an invalid variable in the policy scope: actoin\n"
        f'{other}:3: @id("prod-four-eyes") is taken by {prod}:2\n'
    )
    assert coral("policy", "check", other, "-o", "json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "policies": [],
        "faults": [
            {"source": str(other), "line": 2, "message": "found an invalid variable in the policy scope: actoin"},
        ],
    }
    assert coral("policy", "check", prod.parent / "missing.cedar") == 1
    assert "missing.cedar cannot be read: No such file or directory." in capsys.readouterr().err


def test_cases_that_come_out_as_expected(prod: Path, capsys: Capture) -> None:
    """A table says by which policies; exit 0."""
    cases = prod.parent / "cases.yaml"
    cases.write_text(CASES.replace("EXPECTED", "deny"))
    assert coral("policy", "test", cases) == 0
    out, err = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        "CASE",
        "1 production takes two",
        "2 vic AttachUprobe web",
    ]
    assert out.splitlines()[1].endswith("approval by prod-four-eyes  approval  ok  operators-attach, prod-four-eyes")
    assert err == "2 cases, 0 of them wrong.\n"


def test_cases_that_come_out_otherwise(prod: Path, capsys: Capture) -> None:
    """They are marked, with what was decided and why; exit 1."""
    cases = prod.parent / "cases.yaml"
    cases.write_text(CASES.replace("EXPECTED", "allow"))
    assert coral("policy", "test", cases) == 1
    out, err = capsys.readouterr()
    assert "WRONG" in out.splitlines()[2]
    assert err.splitlines() == [
        "No policy permits vic (viewer) to do AttachUprobe on service 'web'. The role operator may: ask for a token with it "
        "(`coral token create NAME --role operator`).",
        "2 cases, 1 of them wrong.",
    ]
    assert coral("policy", "test", cases, "-o", "jsonl") == 1
    items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(item["expect"], item["got"], item["right"], item["policies"]) for item in items] == [
        ("approval", "approval", True, ["operators-attach", "prod-four-eyes"]),
        ("allow", "deny", False, []),
    ]


def test_cases_are_tried_on_the_policies_of_this_hosts_colony(
    prod: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Where neither the line nor the file names any, the setting policy_dir does."""
    cases = prod.parent / "cases.yaml"
    cases.write_text(CASES.replace("EXPECTED", "deny").replace("policies: [prod.cedar]", ""))
    monkeypatch.setenv("CORAL_COLONY__POLICY_DIR", str(prod.parent))
    assert coral("policy", "test", cases) == 0
    assert capsys.readouterr().err.splitlines()[0] == f"Policies: the default ones, and those in {prod.parent}."
