"""``coral colony init``, and what ``coral colony start`` wants of it."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from support.asynchronous import asynchronous
from support.cli import Cli

from coral.colony.access.tokens import TokenBook
from coral.colony.daemon import check_listen
from coral.colony.founding import found
from coral.colony.rotation import LiveKeys
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound
from coral.model.principal import Role
from coral.trust.authority import holder_of, host_names_of, public_key_of
from coral.trust.colony_keys import ColonyKeys, renewal_due_in_s
from coral.trust.commands import Signer


async def founded(folder: Path, *names: str) -> list[str]:
    """The tokens that were handed over."""
    tokens: list[str] = []
    await found(folder, names, server_lifetime_s=3600.0, hand_over=tokens.append)
    return tokens


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@asynchronous
async def test_a_new_colony(tmp_path: Path) -> None:
    """Keys are 0600 in a folder of 0700; the certificate is for the names that were given and this host's; the token is an
    admin's, and stands in no file; who founded it is in the audit log.
    """
    folder = tmp_path / "state"
    (token,) = await founded(folder, "debug.example.com", "10.0.0.4")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    names = ("ca.pem", "ca.key", "server.pem", "server.key", "command.key", "audit.key")
    assert {name: modes.get(name) for name in names} == dict.fromkeys(names, 0o600)
    assert not any(token.rpartition("_")[2].encode() in content for content in contents(folder).values())
    assert b'"action":"InitColony"' in contents(folder)["audit.jsonl"]
    keys = ColonyKeys.load(folder)
    assert set(host_names_of(keys.server.certificate)) >= {"debug.example.com", "10.0.0.4", "localhost", "127.0.0.1", "::1"}
    assert holder_of(keys.server.certificate).id == keys.colony_id
    control = Database(folder / "control.duckdb", CONTROL)
    await control.open()
    book = TokenBook(control)
    await book.load()
    assert book.identify(token, "127.0.0.1:1").roles == (Role.ADMIN,)
    await control.close()


@asynchronous
async def test_a_second_time(tmp_path: Path) -> None:
    """A second run changes no byte of any file."""
    folder = tmp_path / "state"
    await founded(folder)
    before = contents(folder)
    with pytest.raises(FailedPrecondition, match="nothing was changed"):
        await founded(folder)
    assert contents(folder) == before


@asynchronous
async def test_a_token_that_nobody_got(tmp_path: Path) -> None:
    """When the token cannot be handed over there is no colony, so it can be founded again; the lost token does not count."""
    folder, lost = tmp_path / "state", []

    def full(token: str) -> None:
        lost.append(token)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        await found(folder, (), server_lifetime_s=3600.0, hand_over=full)
    assert not (folder / "ca.pem").exists()
    (token,) = await founded(folder)
    control = Database(folder / "control.duckdb", CONTROL)
    await control.open()
    book = TokenBook(control)
    await book.load()
    assert [record.token_id for record in book.active()] == [token.split("_")[2]] != [lost[0].split("_")[2]]
    await control.close()


@asynchronous
async def test_a_name_that_is_none(tmp_path: Path) -> None:
    """A name that cannot be in a certificate is refused before anything is made."""
    with pytest.raises(InvalidArgument, match="'http://x'"):
        await founded(tmp_path / "state", "http://x")
    assert not (tmp_path / "state").exists()


def test_on_the_command_line(tmp_path: Path) -> None:
    """Before ``init`` a colony does not start, and says what to do. ``init`` prints the token alone on stdout; a second run
    exits with 1.
    """
    coral = Cli("127.0.0.1:1").run
    state = ("--state-dir", str(tmp_path / "state"))
    early = coral("colony", "start", "--listen", "127.0.0.1:0", *state)
    assert (early.exit_code, early.stdout) == (1, "")
    assert "coral colony init" in early.stderr
    assert "--insecure" in early.stderr
    first = coral("colony", "init", *state)
    assert first.exit_code == 0
    assert re.fullmatch(r"coral_user_\w+\n", first.stdout)
    assert first.stdout.strip() not in first.stderr
    second = coral("colony", "init", *state)
    assert (second.exit_code, second.stdout) == (1, "")


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "server.pem", "server.key", "command.key"])
@asynchronous
async def test_keys_that_are_not_whole(tmp_path: Path, name: str) -> None:
    """A key file that others may read, that is damaged or is gone is not used, and none of it is taken for another."""
    folder = tmp_path / "state"
    await founded(folder)
    path = folder / name
    content = path.read_bytes()
    path.chmod(0o604)
    with pytest.raises(FailedPrecondition, match=f"chmod 600 {path}"):
        ColonyKeys.load(folder)
    path.chmod(0o600)
    path.unlink()
    with pytest.raises(NotFound, match=str(path)):
        ColonyKeys.load(folder)
    path.touch(mode=0o600)
    with pytest.raises(FailedPrecondition):
        _use(ColonyKeys.load(folder))
    path.write_bytes(content)
    _use(ColonyKeys.load(folder))


def _use(keys: ColonyKeys) -> None:
    """What a start does with keys first."""
    Signer(keys.command_key)
    renewal_due_in_s(keys.server.certificate)
    public_key_of(keys.server.key)


@asynchronous
async def test_the_colonys_certificate_is_renewed(tmp_path: Path) -> None:
    """A certificate past two thirds of its life is replaced: another serial number, the same key and names, kept for the next
    start; one that is younger stays.
    """
    await founded(tmp_path / "state", "debug.example.com")
    keys = ColonyKeys.load(tmp_path / "state")
    young = LiveKeys(keys, tmp_path / "state", server_lifetime_s=3600.0)
    assert not young.renew_if_due()
    old = LiveKeys(keys.renewed(server_lifetime_s=-60.0), tmp_path / "state", server_lifetime_s=3600.0)
    assert renewal_due_in_s(old.pair().certificate) < 0
    assert old.renew_if_due()
    assert holder_of(old.pair().certificate).serial != holder_of(keys.server.certificate).serial
    assert host_names_of(old.pair().certificate) == host_names_of(keys.server.certificate)
    assert ColonyKeys.load(tmp_path / "state").server == old.pair()
    assert old.pair().key == keys.server.key


@asynchronous
async def test_a_name_that_comes_later(tmp_path: Path) -> None:
    """A name in the settings that the certificate is not for makes a new one, for it and the others, once."""
    folder = tmp_path / "state"
    await founded(folder, "debug.example.com")
    keys = ColonyKeys.load(folder)
    live = LiveKeys(keys, folder, server_lifetime_s=3600.0, names=["10.0.0.4", "0:0:0:0:0:0:0:9", "later.example.com."])
    assert live.renew_if_due()
    assert not live.renew_if_due()
    added = set(host_names_of(live.pair().certificate)) - set(host_names_of(keys.server.certificate))
    assert added == {"10.0.0.4", "::9", "later.example.com"}
    assert set(host_names_of(live.pair().certificate)) > set(host_names_of(keys.server.certificate))
    with pytest.raises(InvalidArgument):
        LiveKeys(keys, folder, server_lifetime_s=3600.0, names=["no name"]).renew_if_due()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_where_a_colony_listens(listen: str) -> None:
    """Addresses that other hosts reach are for colonies with keys alone."""
    check_listen(listen, secured=True)
    with pytest.raises(FailedPrecondition, match="no TLS and no authentication") as refused:
        check_listen(listen, secured=False)
    assert "coral colony init" in refused.value.hint
