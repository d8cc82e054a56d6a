"""Which value of a setting counts, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from coral.config import places
from coral.config.settings import (
    DENIED_BY_DEFAULT,
    AgentSettings,
    ColonySettings,
    ServicePattern,
    load_agent_settings,
    load_colony_settings,
    show_settings,
)
from coral.model.errors import InvalidArgument


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine that runs the tests reaches them."""
    monkeypatch.setattr(places, "_SYSTEM_CONFIG", tmp_path / "etc")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("CORAL_COLONY", raising=False)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_of_the_colony() -> None:
    """Without any source every setting has its documented default."""
    assert load_colony_settings({}).model_dump() == {
        "listen": "127.0.0.1:8081",
        "agent_listen": "",
        "state_dir": places.state_dir(),
        "agent_certificate_s": 2_592_000,
        "server_certificate_s": 7_776_000,
        "server_names": (),
        "metrics_listen": "",
        "heartbeat_ms": 1000,
        "heartbeats_per_s": 333,
        "offline_after_ms": 5000,
        "session_retention_s": 604_800,
        "audit_retention_s": 31_536_000,
        "audit_copy_bytes": 67_108_864,
        "audit_failure": "keep",
        "min_free_bytes": 268_435_456,
        "max_events_bytes": 0,
        "keep_free_bytes": 536_870_912,
        "max_sessions": 1000,
        "max_sessions_per_user": 10,
        "max_sessions_per_service": 20,
        "max_sessions_per_agent": 64,
        "slot_wait_s": 5.0,
        "max_calls_per_user": 64,
        "calls_per_s": 100,
        "calls_burst": 400,
        "refusals_per_s": 5,
        "max_connections": 4096,
        "oidc": None,
        "policy_dir": "",
        "approval_s": 900,
        "environment": "",
        "labels": {},
    }


def test_an_identity_provider(tmp_path: Path) -> None:
    """Its settings stand below one key; an algorithm with a shared secret, or a role that is none, is refused by name."""
    text = "oidc:\n  issuer: https://id.example.com\n  audience: coral\n"
    found = load_colony_settings({}, _write(tmp_path / "colony.yaml", f"{text}  roles: {{sre: operator}}\n")).oidc
    assert found is not None
    assert (found.issuer, found.algorithms) == ("https://id.example.com", ("RS256", "ES256"))
    assert found.roles == {"sre": "operator"}
    for wrong in ("algorithms: [HS256]", "algorithms: [none]", "algorithms: []", "roles: {sre: root}", "secret: x"):
        with pytest.raises(InvalidArgument, match=rf"oidc\.{wrong.partition(':')[0]}.* in .*colony\.yaml is wrong"):
            load_colony_settings({}, _write(tmp_path / "colony.yaml", f"{text}  {wrong}\n"))


def test_an_invitation_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token with which an agent joins is a secret: neither what shows the settings nor an error repeats it."""
    monkeypatch.setenv("CORAL_AGENT__JOIN", "coral_invite_sekret")
    settings = load_agent_settings({})
    assert settings.join.get_secret_value() == "coral_invite_sekret"
    assert "sekret" not in repr(settings) + repr(show_settings())
    monkeypatch.setenv("CORAL_AGENT__RING_BYTES", "0")
    with pytest.raises(InvalidArgument) as refused:
        load_agent_settings({})
    assert "sekret" not in repr(refused.value)


def test_defaults_of_the_agent() -> None:
    """Without any source every setting has its documented default."""
    assert load_agent_settings({}).model_dump() == {
        "listen": "127.0.0.1:8080",
        "advertise": "",
        "state_dir": places.state_dir(),
        "colony": "127.0.0.1:8081",
        "metrics_listen": "",
        "join": SecretStr(""),
        "agent_id": "",
        "services": (),
        "ring_bytes": 16 << 20,
        "window_bytes": 128 << 20,
        "max_open_calls": 131_072,
        "max_collectors": 64,
        "max_sites": 10_000,
        "session_events_per_s": 0,
        "events_per_s": 2_000_000,
        "debug_folders": ("/usr/lib/debug",),
        "deny": (),
        "deny_by_default": tuple(rule.model_dump() for rule in DENIED_BY_DEFAULT),
        "allow_values": False,
    }


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag over environment over the user's file over the system's file over the default."""
    system = "{listen: 'a:1', heartbeat_ms: 1, offline_after_ms: 1, max_sessions: 1}"
    _write(tmp_path / "etc" / "colony.yaml", system)
    _write(tmp_path / "xdg" / "coral" / "config.yaml", "colony: {listen: 'b:1', heartbeat_ms: 2, offline_after_ms: 2}")
    monkeypatch.setenv("CORAL_COLONY__HEARTBEAT_MS", "3")
    monkeypatch.setenv("CORAL_COLONY__LISTEN", "c:1")
    settings = load_colony_settings({"listen": "d:1", "state_dir": None})
    assert (settings.listen, settings.heartbeat_ms, settings.offline_after_ms, settings.max_sessions) == ("d:1", 3, 2, 1)


def test_a_named_file_is_the_only_one(tmp_path: Path) -> None:
    """``--config`` replaces the usual files."""
    _write(tmp_path / "etc" / "colony.yaml", "heartbeat_ms: 7")
    named = _write(tmp_path / "mine.yaml", "max_sessions: 5")
    settings = load_colony_settings({}, named)
    assert (settings.heartbeat_ms, settings.max_sessions) == (1000, 5)


def test_the_agents_colony_is_an_address_or_a_section(tmp_path: Path) -> None:
    """``colony: HOST:PORT`` is the agent's key; ``colony:`` with keys below it is the colony's section."""
    flat = _write(tmp_path / "flat.yaml", "colony: 10.0.0.1:8081")
    sections = _write(tmp_path / "sections.yaml", "colony: {listen: '127.0.0.1:1'}\nagent: {colony: 10.0.0.2:8081}")
    assert load_agent_settings({}, flat).colony == "10.0.0.1:8081"
    assert load_agent_settings({}, sections).colony == "10.0.0.2:8081"


def test_the_general_variable_names_the_agents_colony(monkeypatch: pytest.MonkeyPatch) -> None:
    """CORAL_COLONY counts for the agent too, below the agent's own variable."""
    monkeypatch.setenv("CORAL_COLONY", "one:1")
    assert load_agent_settings({}).colony == "one:1"
    monkeypatch.setenv("CORAL_AGENT__COLONY", "two:2")
    assert load_agent_settings({}).colony == "two:2"
    assert load_agent_settings({"colony": "three:3"}).colony == "three:3"


def test_services_from_a_file_and_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are a list of mappings in a file, and the same as JSON in the environment."""
    file = _write(tmp_path / "a.yaml", "services:\n  - {name: shop, executable: /opt/shop/*, sdk_addr: '127.0.0.1:9'}\n")
    assert load_agent_settings({}, file).services == (
        ServicePattern(name="shop", executable="/opt/shop/*", sdk_addr="127.0.0.1:9"),
    )
    monkeypatch.setenv("CORAL_AGENT__SERVICES", '[{"name": "web", "unit": "nginx.service"}]')
    assert load_agent_settings({}, file).services == (ServicePattern(name="web", unit="nginx.service"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lisen: x", "lisen in {path} is not a setting of the agent."),
        ("ring_bytes: -1", "ring_bytes in {path} is wrong: Input should be greater than 0."),
        ("services: [{nam: x}]", "services[0].name in {path} is wrong: Field required."),
        (
            "agent: {ring_bytes: lots}",
            "agent.ring_bytes in {path} is wrong: Input should be a valid integer, unable to parse",
        ),
        ("agent: {}\nlisten: x", "listen in {path} is in no section."),
        ("- 1", "{path} does not hold keys and values."),
        ("a: [", "{path} is not YAML:"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    """Unknown keys and bad values are refused, and the message says where they stand."""
    path = _write(tmp_path / "a.yaml", text)
    with pytest.raises(InvalidArgument) as caught:
        load_agent_settings({}, path)
    assert caught.value.message.startswith(message.format(path=path))
    assert caught.value.hint


def test_a_missing_named_file_is_an_error(tmp_path: Path) -> None:
    """The usual files may be missing; one that was named may not."""
    with pytest.raises(InvalidArgument, match="does not exist"):
        load_agent_settings({}, tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CORAL_AGENT__RING_BYTS", "1", "CORAL_AGENT__RING_BYTS in the environment is not a setting of the agent."),
        ("CORAL_AGENT__RING_BYTES", "x", "CORAL_AGENT__RING_BYTES in the environment is wrong:"),
        ("CORAL_AGENT__SERVICES", "[", "CORAL_AGENT__SERVICES in the environment is not JSON:"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    """The environment is held to the same rules as a file."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgument) as caught:
        load_agent_settings({})
    assert caught.value.message.startswith(message)


def test_what_counts_and_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting of both daemons is shown with the place that gave it."""
    system = _write(tmp_path / "etc" / "colony.yaml", "{max_sessions: 5, heartbeat_ms: 7}")
    monkeypatch.setenv("CORAL_COLONY__HEARTBEAT_MS", "9")
    monkeypatch.setenv("CORAL_COLONY", "c:1")
    shown = {one.key: (one.value, one.source) for one in show_settings()}
    assert len(shown) == len(ColonySettings.model_fields) + len(AgentSettings.model_fields)
    assert shown["colony.max_sessions"] == (5, str(system))
    assert shown["colony.heartbeat_ms"] == (9, "the environment")
    assert shown["colony.listen"] == ("127.0.0.1:8081", "default")
    assert shown["agent.colony"] == ("c:1", "the environment")
    assert shown["agent.services"] == ([], "default")
    assert shown["agent.debug_folders"] == (["/usr/lib/debug"], "default")


def test_places_follow_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's state is under XDG_STATE_HOME; a relative path there is ignored, as the specification says."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/x/state")
    assert places.state_dir() == Path("/x/state/coral")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ann")
    assert places.state_dir() == Path("/home/ann/.local/state/coral")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert places.state_dir() == Path("/var/lib/coral")
