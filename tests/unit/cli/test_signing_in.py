"""Signing in, contexts and tokens: whole command lines against a real colony with TLS."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.colony_thread import colony_in_thread
from support.secured_colony import SecuredColony, secured_colony_in_thread
from support.synthetic_colony import SyntheticColony

from coral.__main__ import COMMANDS, GROUPS
from coral.cli.entry import run
from coral.cli.options import Globals
from coral.model.errors import FailedPrecondition
from coral.trust.authority import Authority

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SecuredColony, str, Path]]:
    """A colony, the token of its admin, and its ca.pem."""
    folder = tmp_path_factory.mktemp("colony")
    with secured_colony_in_thread(folder / "state", users={"root": "admin"}) as (colony, tokens):
        yield colony, tokens["root"], folder / "state" / "ca.pem"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without contexts; nothing of the machine's own environment counts."""
    for name in ("CORAL_COLONY", "CORAL_TOKEN", "CORAL_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "coral" / "contexts.yaml"


def coral(*arguments: str) -> int:
    """Runs a command line."""
    return run(arguments, commands=COMMANDS, groups=GROUPS)


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What stdin gives."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def sign_in(monkeypatch: pytest.MonkeyPatch, running: tuple[SecuredColony, str, Path], *more: str) -> int:
    """Signs the admin in."""
    colony, token, ca = running
    type_in(monkeypatch, token + "\n")
    return coral("login", "--colony", colony.address, "--ca", str(ca), *more)


def test_login_keeps_a_token_that_counts(
    running: tuple[SecuredColony, str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture, home: Path
) -> None:
    """It is shown to the colony, then kept in a file of mode 0600; commands use it from then on, with nothing on the line."""
    colony, token, _ = running
    assert sign_in(monkeypatch, running) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Signed in to {colony.address} as root (admin, until 20")
    assert err.endswith(f"); context {colony.address}.\n")
    assert token not in err
    assert stat.S_IMODE(home.stat().st_mode) == 0o600
    kept = yaml.safe_load(home.read_text())
    assert kept["contexts"][colony.address]["token"] == token
    assert coral("token", "list", "-o", "json") == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)["items"]][-1] == "root"
    assert coral("context", "list", "-o", "json") == 0
    out = capsys.readouterr().out
    assert json.loads(out)["items"] == [{"name": colony.address, "colony": colony.address, "user": "root", "current": True}]
    assert token not in out


@pytest.mark.parametrize(
    ("typed", "code", "message"),
    [
        ("", 2, "That is no token."),
        ("two words\n", 2, "That is no token."),
        ("x" * 9000 + "\n", 2, "That is no token."),
        ("tok\x1ben\n", 2, "That is no token."),
        ("garbage\n", 4, "That is no Coral token."),
        ("coral_user_aaaaaaaaaaaaaaaa_" + "a" * 52 + "\n", 4, "This colony does not know that token."),
    ],
)
def test_login_keeps_nothing_that_does_not_count(
    running: tuple[SecuredColony, str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    home: Path,
    typed: str,
    code: int,
    message: str,
) -> None:
    """What is no token, or none of this colony, is refused without being repeated, and no file is left."""
    colony, _, ca = running
    type_in(monkeypatch, typed)
    assert coral("login", "--colony", colony.address, "--ca", str(ca)) == code
    err = capsys.readouterr().err
    assert message in err
    assert len(typed) < 5 or typed.strip() not in err
    assert not home.exists()


def test_login_needs_to_know_the_colony(
    running: tuple[SecuredColony, str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    """Without its certificate, or with another colony's, no token is shown to anybody."""
    colony, token, _ = running
    type_in(monkeypatch, token + "\n")
    assert coral("login", "--colony", colony.address) == 2
    assert "nothing to know the colony at" in capsys.readouterr().err
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.create("other").pair.certificate)
    type_in(monkeypatch, token + "\n")
    assert coral("login", "--colony", colony.address, "--ca", str(other)) == 5
    assert "cannot be reached" in capsys.readouterr().err
    other.write_text("no certificate")
    assert coral("login", "--colony", colony.address, "--ca", str(other)) == 2
    assert "holds no certificate" in capsys.readouterr().err


def test_a_second_login_takes_the_place_of_the_first(
    running: tuple[SecuredColony, str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture, home: Path
) -> None:
    """Of a colony that is known already nothing has to be given but the new token; the context keeps its name."""
    assert sign_in(monkeypatch, running, "--name", "prod") == 0
    assert coral("token", "create", "second", "--role", "admin") == 0
    type_in(monkeypatch, capsys.readouterr().out)
    assert coral("login") == 0
    assert yaml.safe_load(home.read_text())["contexts"]["prod"]["user"] == "second"
    assert coral("context", "use", "staging") == 3
    assert "There is prod." in capsys.readouterr().err


def test_a_token_is_printed_once(
    running: tuple[SecuredColony, str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Stdout has the token alone; lists never have it; it works until it is revoked, and says so after."""
    colony, token, ca = running
    monkeypatch.setenv("CORAL_TOKEN", token)
    monkeypatch.setenv("CORAL_COLONY", colony.address)
    monkeypatch.setenv("CORAL_CA", str(ca))
    assert coral("token", "create", "ann", "--role", "viewer", "--expires", "1h", "--service", "check*") == 0
    out, err = capsys.readouterr()
    made = out.strip()
    assert out == made + "\n"
    assert made.startswith("coral_user_")
    assert err.startswith("Token of ann (viewer, check*, until 20")
    assert coral("token", "create", "ann", "--role", "viewer") == 1
    assert "There is a token of ann that counts." in capsys.readouterr().err
    assert coral("token", "list") == 0
    listed = capsys.readouterr().out
    assert made not in listed
    assert "ann" in listed
    monkeypatch.setenv("CORAL_TOKEN", made)
    assert coral("service", "list", "-o", "json") == 0
    assert coral("token", "create", "eve", "--role", "admin") == 7
    assert "may not CreateToken" in capsys.readouterr().err
    monkeypatch.setenv("CORAL_TOKEN", token)
    assert coral("token", "revoke", "ann") == 0
    assert capsys.readouterr().err == "The token of ann was revoked.\n"
    assert coral("token", "revoke", "ann") == 3
    capsys.readouterr()
    monkeypatch.setenv("CORAL_TOKEN", made)
    assert coral("service", "list", "-o", "json") == 4
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["message"]) == ("UNAUTHENTICATED", "The token of ann was revoked.")
    assert "`coral login`" in error["hint"]


def test_no_credential_is_exit_4(running: tuple[SecuredColony, str, Path], capsys: Capture) -> None:
    """A command without a token says how to get one; a plain connection to a colony with TLS says what is missing."""
    colony, _, ca = running
    assert coral("agent", "list", "--colony", colony.address, "--ca", str(ca)) == 4
    assert capsys.readouterr().err == (
        "Error: No credential was shown.\nSign in with `coral login`, or give a token in CORAL_TOKEN.\n"
    )
    assert coral("agent", "list", "--colony", colony.address) == 5
    assert "--ca FILE for one that has TLS" in capsys.readouterr().err


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[SyntheticColony]:
    """A colony that asks for nothing."""
    with colony_in_thread() as made:
        yield made


def test_a_token_goes_to_its_own_colony_alone(
    running: tuple[SecuredColony, str, Path], plain: SyntheticColony, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Another colony is shown neither the context's token nor, in plain text, the one of the environment."""
    colony, token, _ = running
    assert sign_in(monkeypatch, running) == 0
    monkeypatch.setenv("CORAL_TOKEN", token)
    assert coral("--colony", plain.address, "agent", "list") == 0
    options = Globals()
    options.colony = plain.address
    assert (options.endpoint().token, options.endpoint().ca_pem) == ("", None)
    options.colony = colony.address
    assert options.endpoint().token == token
    options.use_inside("127.0.0.1:1")
    assert (options.endpoint().address, options.endpoint().token) == ("127.0.0.1:1", "")


def test_contexts_that_others_can_read_do_not_count(
    running: tuple[SecuredColony, str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture, home: Path
) -> None:
    """A file that is open to others, or is no file of contexts, is refused by name, and what it holds is not shown."""
    _, token, _ = running
    assert sign_in(monkeypatch, running) == 0
    capsys.readouterr()
    home.chmod(0o644)
    assert coral("agent", "list") == 1
    err = capsys.readouterr().err
    assert "contexts.yaml is open to others (mode 0644)" in err
    home.chmod(0o600)
    for text in (
        f"contexts: [{token}]",
        f"current: x\ncontexts: {{x: {{colony: 1, ca: a, token: {token}}}}}",
        "{",
        "a: [",
        "- !!python/object:x",
    ):
        home.write_text(text)
        assert coral("agent", "list") == 2
        err = capsys.readouterr().err
        assert "is not a file of contexts" in err
        assert token not in err


def test_a_certificate_and_its_key_go_together(
    running: tuple[SecuredColony, str, Path], capsys: Capture, tmp_path: Path
) -> None:
    """One without the other is refused, as are a key that others can read and files that are not there."""
    _, _, ca = running
    key = tmp_path / "key.pem"
    key.write_text("key")
    key.chmod(0o644)
    for line, code, message in (
        (("--cert", str(ca)), 2, "go together"),
        (("--key", str(key)), 2, "go together"),
        (("--cert", str(ca), "--key", str(key)), 1, "open to others"),
        (("--ca", str(tmp_path / "none.pem")), 2, "cannot be read"),
    ):
        assert coral("agent", "list", *line) == code
        assert message in capsys.readouterr().err


def test_an_endpoint_does_not_show_its_secrets(running: tuple[SecuredColony, str, Path]) -> None:
    """Neither a token nor a key is in what an endpoint looks like, and no token is sent to another host in plain text."""
    colony, token, _ = running
    endpoint = colony.endpoint(token)
    assert token not in repr(endpoint)
    with pytest.raises(FailedPrecondition, match=r"not sent to colony\.example\.com:8081 in plain text"):
        replace(endpoint, address="colony.example.com:8081", ca_pem=None).check()
