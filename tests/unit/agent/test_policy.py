"""What a host forbids: rules match as their settings say, and a refusal says which rule it was and where to change it."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Any

import pytest

from coral.agent.policy import LocalPolicy, names_of
from coral.config.settings import DENIED_BY_DEFAULT, AgentSettings, load_agent_settings, show_settings
from coral.model.errors import InvalidArgument, PermissionDenied
from coral.procfs.process import Process, ProcessId


def _process(executable: str = "/usr/bin/checkout", *, uid: int = 1000, cgroup: str = "") -> Process:
    return Process(
        id=ProcessId(pid=4411, start_time_ns=0),
        ppid=1,
        executable=executable,
        deleted=False,
        cmdline=(executable,),
        environ={},
        cgroup=cgroup,
        uid=uid,
    )


def _denied(policy: LocalPolicy, *question: Any) -> str:
    """The name of the rule that denies it; empty when none does."""
    try:
        policy.check_process(*question)
    except PermissionDenied as error:
        return error.details["policy"]
    return ""


@pytest.mark.parametrize(
    "executable",
    [
        "/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/bin/ssh-agent", "/usr/bin/gpg-agent", "/usr/bin/vault",
        "/usr/bin/sudo", "/usr/bin/su", "/usr/bin/login", "/usr/lib/polkit-1/polkitd", "/usr/lib/systemd/systemd",
        "/usr/lib/systemd/systemd-journald", "/usr/bin/gnome-keyring-daemon",
    ],
)  # fmt: skip
def test_what_lets_people_in_and_what_keeps_secrets_is_denied_by_default(executable: str) -> None:
    """Of these programs nothing is probed under the default settings, under whatever service name they run."""
    assert _denied(LocalPolicy.of(AgentSettings()), _process(executable), "shop").startswith("agent.deny_by_default[")


@pytest.mark.parametrize(
    "executable",
    ["/usr/sbin/nginx", "/usr/bin/python3.11", "/opt/vault-client/bin/app", "/usr/bin/sshd2", "/usr/bin/sum", "/usr/bin/ssh"],
)
def test_services_are_not_denied_by_default(executable: str) -> None:
    """What a host is there for is no business of the default rules, nor is what has a similar name."""
    assert _denied(LocalPolicy.of(AgentSettings()), _process(executable), "shop") == ""


@pytest.mark.parametrize(
    ("rule", "denied", "allowed"),
    [
        ({"executable": "check*"}, (_process(), "shop"), (_process("/check/other"), "shop")),
        ({"executable": "/usr/bin/*"}, (_process(), "shop"), (_process("/opt/checkout"), "shop")),
        (
            {"unit": "pay*.service"},
            (_process(cgroup="/system.slice/payments.service"), "shop"),
            (_process(cgroup="/system.slice/shop.service"), "shop"),
        ),
        ({"user": "1000"}, (_process(), "shop"), (_process(uid=1001), "shop")),
        ({"user": "root"}, (_process(uid=0), "shop"), (_process(), "shop")),
        ({"service": "pay*"}, (_process(), "payments"), (_process(), "shop")),
        ({"function": "EVP_*"}, (_process(), "shop", names_of("libcrypto.so.3!EVP_DigestInit")), (_process(), "shop")),
        ({"function": "crypt"}, (_process(), "shop", names_of("alias", "crypt")), (_process(), "shop", names_of("decrypt"))),
        ({"function": "ns::pay"}, (_process(), "shop", names_of("pay", "ns::pay(int)")), (_process(), "shop", ("pay",))),
        ({"executable": "checkout", "user": "0"}, (_process(uid=0), "shop"), (_process(), "shop")),
    ],
)  # fmt: skip
def test_a_rule_matches_all_of_its_patterns(rule: dict[str, str], denied: Any, allowed: Any) -> None:
    """Globs over path, unit, service and every name of a function, users by name and number: all that are given count."""
    policy = LocalPolicy.of(AgentSettings(deny=[{**rule, "reason": "ours"}]))  # type: ignore[list-item]
    assert (_denied(policy, *denied), _denied(policy, *allowed)) == ("agent.deny[0]", "")


def test_a_user_who_is_not_there_denies_nobody_until_there_is_one() -> None:
    """A rule for a user of other hosts does no harm here."""
    name = "nobody-of-this-name"
    assert name not in {entry.pw_name for entry in pwd.getpwall()}
    policy = LocalPolicy.of(AgentSettings(deny=[{"user": name, "reason": "ours"}]))  # type: ignore[list-item]
    assert _denied(policy, _process(), "shop") == ""


def test_a_refusal_names_the_rule_and_the_file(tmp_path: Path) -> None:
    """Who is refused learns why, and whoever administers the host learns where to change it."""
    file = tmp_path / "agent.yaml"
    file.write_text('deny:\n- {service: "pay*", reason: card numbers pass through it}\n')
    policy = LocalPolicy.of(load_agent_settings({}, file))
    with pytest.raises(PermissionDenied) as refused:
        policy.check_process(_process(), "payments")
    assert refused.value.message == (
        "The policy of this host denies process 4411 (/usr/bin/checkout): card numbers pass through it "
        f"(rule agent.deny[0], {file})."
    )
    assert refused.value.hint == "Who administers the host can change agent.deny there."
    with pytest.raises(PermissionDenied, match=r"agent\.deny_by_default\[0\], /etc/coral/agent\.yaml"):
        policy.check_process(_process("/usr/sbin/sshd"), "ssh")


def test_own_rules_do_not_take_the_default_ones_away(tmp_path: Path) -> None:
    """They are added; the default list is changed by giving a whole one."""
    file = tmp_path / "agent.yaml"
    file.write_text("deny:\n- {service: pay, reason: ours}\n")
    assert load_agent_settings({}, file).deny_by_default == DENIED_BY_DEFAULT
    file.write_text("deny_by_default: []\n")
    assert _denied(LocalPolicy.of(load_agent_settings({}, file)), _process("/usr/sbin/sshd"), "ssh") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deny:\n- {service: pay}\n", r"deny\[0\]\.reason in .* is wrong: Field required"),
        ("deny:\n- {reason: all}\n", r"deny\[0\] in .* is wrong: .*would deny everything"),
        ("deny:\n- {servise: pay, reason: ours}\n", r"deny\[0\]\.servise in .* is wrong: Extra inputs"),
        ("allow_values: perhaps\n", "allow_values in .* is wrong"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_at_start(tmp_path: Path, text: str, message: str) -> None:
    """An agent that did not understand its policy would not have one."""
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        load_agent_settings({}, file)


def test_config_show_has_the_policy() -> None:
    """Every rule that counts is among the settings, and where it comes from."""
    shown = {setting.key: setting for setting in show_settings()}
    defaults = shown["agent.deny_by_default"]
    assert (shown["agent.allow_values"].value, shown["agent.deny"].value, defaults.source) == (False, [], "default")
    assert {rule["executable"] for rule in defaults.value} >= {"sshd", "sudo", "vault", "systemd", "ssh-agent"}
