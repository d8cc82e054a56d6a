"""Seconds of ``make fuzz`` of what decides who may what: names, credentials, policies, the audit log, and every RPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fuzz import audit, names, policy, rpc, timed, tokens
from fuzz.plant import plant

_SEED = 6


@pytest.mark.parametrize(
    ("case", "met"),
    [
        (names.case, {"read", "INVALID_ARGUMENT"}),
        (tokens.case, {"token: refused", "invitation: refused", "jwt: refused", "command: refused"}),
        (audit.case, {"_bytes: changed", "_cut: changed", "_forged: changed", "_moved: removed", "_moved: reordered"}),
        (policy.case, {"text: refused", "text: in force", "question: denied", "cases: refused"}),
    ],
    ids=["names", "tokens", "audit", "policy"],
)
def test_hostile_text_ends_in_answers_and_refusals(case: timed.Case, met: set[str]) -> None:
    """No case ends in anything but what it may end in, none is slow, and the cases reach what they are meant for."""
    report = timed.run(case, seed=_SEED, seconds=0.8, jobs=1)
    assert report.defects == []
    assert report.worst_s < 2, report.worst
    assert met <= set(report.outcomes)


@pytest.mark.kernel
def test_every_rpc_survives_what_nobody_meant_to_send(tmp_path: Path) -> None:
    """Colony and agent answer each request, health checks meanwhile, with no INTERNAL, no traceback in a log, no growth."""
    with plant(tmp_path) as target:
        report = asyncio.run(rpc.fuzz(target, seed=_SEED, seconds=2.5))
    assert report.defects == []
    assert report.cases > 50
    servers = {"colony", "agent", "secured colony", "joined agent", "agents' port"}
    assert {outcome.partition(",")[0] for outcome in report.outcomes} == servers
    assert any(outcome.endswith(": OK") for outcome in report.outcomes)
