from __future__ import annotations

import pytest

from coral.model.errors import InvalidArgument
from coral.model.text import check_name
from coral.procfs.process import Process, ProcessId
from coral.procfs.service import Named, ServiceRule, name_process

ID = "0123456789abcdef" * 4


def process(
    *,
    environ: dict[str, str] | None = None,
    cgroup: str = "/",
    executable: str = "/usr/bin/app",
    cmdline: tuple[str, ...] = ("app", "--port", "80"),
    is_kernel_thread: bool = False,
) -> Process:
    """A process of which only what names it matters."""
    return Process(
        id=ProcessId(pid=1 << 22, start_time_ns=0),
        ppid=1,
        executable=executable,
        deleted=False,
        cmdline=cmdline,
        environ=environ or {},
        cgroup=cgroup,
        is_kernel_thread=is_kernel_thread,
    )


def test_the_first_rule_that_applies_names_it() -> None:
    """Taking away one reason after the other leads through all rules in their order."""
    environ = {
        "CORAL_SERVICE": "by-coral",
        "OTEL_SERVICE_NAME": "by-otel",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod, service.name=by%20attribute,x",
    }
    cgroup = f"/system.slice/unit.service/docker/{ID}"
    rules = [ServiceRule(name="by-rule", executable="app")]
    found = [name_process(process(environ=environ, cgroup=cgroup), rules=rules)]
    for variable in ("", "CORAL_SERVICE", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        environ.pop(variable, None)
        found.append(name_process(process(environ=environ, cgroup=cgroup)))
    found.append(name_process(process(cgroup=f"/docker/{ID}")))
    found.append(name_process(process()))
    found.append(name_process(process(cmdline=("a title",))))
    assert found == [
        Named(name="by-rule", rule="config"),
        Named(name="by-coral", rule="CORAL_SERVICE"),
        Named(name="by-otel", rule="OTEL_SERVICE_NAME"),
        Named(name="by attribute", rule="OTEL_RESOURCE_ATTRIBUTES"),
        Named(name="unit", rule="systemd"),
        Named(name="0123456789ab", rule="container"),
        Named(name="app", rule="argv0"),
        Named(name="app", rule="executable"),
    ]


def test_an_empty_variable_names_nothing() -> None:
    """A variable that is set to nothing, or to blanks, is as good as unset."""
    environ = {"CORAL_SERVICE": "", "OTEL_SERVICE_NAME": "  ", "OTEL_RESOURCE_ATTRIBUTES": "service.name=,a=b"}
    assert name_process(process(environ=environ)) == Named(name="app", rule="argv0")


def test_the_agents_own_unit_names_nothing() -> None:
    """What is started by hand beside the agent is in its unit and not its service."""
    started = process(cgroup="/system.slice/coral-agent.service")
    assert name_process(started, own_unit="coral-agent") == Named(name="app", rule="argv0")
    assert name_process(started, own_unit="ssh") == Named(name="coral-agent", rule="systemd")


def test_variables_known_from_elsewhere_fill_in() -> None:
    """An earlier reading or an ancestor gives what the process does not show itself, and nothing more."""
    inherited = {"CORAL_SERVICE": "inherited", "CORAL_SDK_VERSION": "1.2"}
    assert name_process(process(), inherited_environ=inherited) == Named(
        name="inherited", rule="CORAL_SERVICE", sdk_version="1.2"
    )
    own = process(environ={"CORAL_SERVICE": "own"})
    assert name_process(own, inherited_environ=inherited) == Named(name="own", rule="CORAL_SERVICE", sdk_version="1.2")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a\x1b[31mb\n", "a\\x1b[31mb"),
        ("Zahlungs-Dienst ü", "Zahlungs-Dienst ü"),
        ("bad\udcff", "bad\\udcff"),
        ("x" * 2000, "x" * 1024),
        ("ü" * 600, "ü" * 512),
        ("a" + "ü" * 600, "a" + "ü" * 511),
    ],
)
def test_names_are_made_safe(value: str, name: str) -> None:
    """What a terminal would act on is escaped, and a name is cut after a whole character at 1,024 bytes."""
    named = name_process(process(environ={"CORAL_SERVICE": value}))
    assert named == Named(name=name, rule="CORAL_SERVICE")
    check_name(name, "service_name")


@pytest.mark.parametrize(
    ("address", "accepted"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("10.0.0.1:9000", ""),
        ("evil.example:80", ""),
        ("127.0.0.1:9000\n", ""),
    ],
)
def test_only_an_sdk_on_this_host_is_believed(address: str, accepted: str) -> None:
    """A process must not make the agent connect elsewhere."""
    environ = {"CORAL_SDK_ADDR": address, "CORAL_SDK_VERSION": "0.3\x07"}
    assert name_process(process(environ=environ)) == Named(
        name="app", rule="argv0", sdk_addr=accepted, sdk_version="0.3\\x07"
    )


def test_the_configured_sdk_address_wins() -> None:
    """The agent's configuration is believed before the process."""
    rule = ServiceRule(name="shop", cmdline="port", sdk_addr="127.0.0.1:1")
    assert name_process(process(environ={"CORAL_SDK_ADDR": "127.0.0.1:2"}), rules=[rule]) == Named(
        name="shop", rule="config", sdk_addr="127.0.0.1:1"
    )


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [
        ({"executable": "app"}, True),
        ({"executable": "a*"}, True),
        ({"executable": "/usr/*/app"}, True),
        ({"executable": "/opt/*"}, False),
        ({"executable": "APP"}, False),
        ({"cmdline": r"--port \d+$"}, True),
        ({"cmdline": r"^--port"}, False),
        ({"unit": "web@*"}, True),
        ({"unit": "web@1.service"}, True),
        ({"unit": "web"}, False),
        ({"container": "0123*"}, True),
        ({"container": "9*"}, False),
        ({"executable": "app", "cmdline": "port", "unit": "web@1", "container": "*"}, True),
        ({"executable": "app", "cmdline": "port", "unit": "web@2", "container": "*"}, False),
    ],
)
def test_every_given_pattern_must_match(patterns: dict[str, str], matches: bool) -> None:
    """A rule of the configuration matches when all of its patterns do."""
    target = process(cgroup=f"/system.slice/web@1.service/libpod-{ID}")
    assert ServiceRule(name="web", **patterns).matches(target) is matches


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no pattern"),
        ({"cmdline": "("}, "is not a regular expression"),
        ({"executable": "x", "sdk_addr": "10.0.0.1:1"}, "is not on this host"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(fields: dict[str, str], message: str) -> None:
    """Constructing a rule checks it, and says what to do."""
    with pytest.raises(InvalidArgument, match=message) as caught:
        ServiceRule(name="web", **fields)
    assert caught.value.hint


def test_kernel_threads_and_nameless_processes_have_no_service() -> None:
    """There is nothing to name them by."""
    assert name_process(process(is_kernel_thread=True, environ={"CORAL_SERVICE": "x"})) is None
    assert name_process(process(executable="", cmdline=())) is None
