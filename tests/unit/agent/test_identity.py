"""What an agent keeps of its colony."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coral.agent.identity import FILE, Identity
from coral.model.errors import FailedPrecondition, NotFound
from coral.trust.authority import COLONY_DNS, Authority, new_key, private_pem, request_for
from coral.trust.commands import new_command_key

AUTHORITY = Authority.create("01COLONY")


def identity(agent_id: str = "web-1") -> Identity:
    """One that an agent has after joining."""
    key = new_key()
    return Identity(
        agent_id=agent_id,
        colony_id="01COLONY",
        invite_id="abc",
        agent_port=8083,
        ca=AUTHORITY.pair.certificate.decode(),
        command_key=new_command_key()[1].decode(),
        certificate=AUTHORITY.issue_agent(request_for(key, agent_id), agent_id, lifetime_s=60).decode(),
        key=private_pem(key).decode(),
    )


def test_kept_and_found(tmp_path: Path) -> None:
    """It is found as it was kept, in one file of mode 0600, and its key does not show."""
    kept = identity()
    with pytest.raises(NotFound):
        Identity.load(tmp_path)
    kept.save(tmp_path)
    assert Identity.load(tmp_path) == kept
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [(FILE, 0o600)]
    assert "PRIVATE" not in repr(kept)
    renewed = replace(kept, agent_port=9)
    renewed.save(tmp_path)
    assert Identity.load(tmp_path).agent_port == 9


def test_damaged(tmp_path: Path) -> None:
    """A file that is open to others, no JSON, lacks a field, has another's certificate or one that is none is not used; the
    error says how to join again.
    """
    path = tmp_path / FILE
    good = identity()
    good.save(tmp_path)
    document = json.loads(path.read_text())
    for damaged in (
        "", "[]", "{", json.dumps({**document, "more": 1}), json.dumps({**document, "certificate": "x"}),
        json.dumps({**document, "certificate": None}), json.dumps({**document, "certificate": identity("web-2").certificate}),
        json.dumps({key: value for key, value in document.items() if key != "key"}),
    ):  # fmt: skip
        path.write_text(damaged)
        with pytest.raises(FailedPrecondition, match="damaged") as refused:
            Identity.load(tmp_path)
        assert "--join" in refused.value.hint
    good.save(tmp_path)
    path.chmod(0o640)
    with pytest.raises(FailedPrecondition, match="chmod 600"):
        Identity.load(tmp_path)


@pytest.mark.parametrize(
    ("colony", "address"),
    [("debug.example.com:8081", "debug.example.com:8083"), ("10.0.0.4:1", "10.0.0.4:8083"), ("[::1]:8081", "[::1]:8083")],
)
def test_where_the_colony_is(colony: str, address: str) -> None:
    """Agents call their colony on the port that it has for them, and want the name that only it has."""
    endpoint = identity().colony_endpoint(colony)
    assert (endpoint.address, endpoint.server_name) == (address, COLONY_DNS)
    assert endpoint.certificate is not None
