"""The settings of the colony and of the agent: a flag wins over the environment, that over a file, that over the default."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator

from coral.config import places
from coral.model.errors import InvalidArgument
from coral.model.principal import Role

_MIB = 1 << 20
Count = Annotated[int, Field(gt=0)]
Label = Annotated[str, Field(max_length=256)]
Folder = Annotated[str, Field(pattern="^/")]


class _Settings(BaseModel):
    """What both have in common. Values come from ``_load`` alone, which knows the source of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    daemon: ClassVar[str]
    env_prefix: ClassVar[str]
    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    def place_of(self, key: str) -> str:
        """Where a setting can be changed: where its value comes from, else the system's file for it."""
        return self._places.get(key) or str(places.config_files(self.daemon)[0])


class IdentityProvider(BaseModel):
    """Whose JSON Web Tokens count for users (OpenID Connect).

    Attributes:
        issuer: Its address, exactly as its tokens have it.
        audience: For whom its tokens have to be.
        keys_url: Where its keys are; empty for what its discovery document says.
        algorithms: By which its tokens may be signed.
        name_claim: Where the user's name stands in them.
        groups_claim: Where the user's groups stand.
        roles: By group: viewer, operator, investigator or admin. A user has the roles of all their groups.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)]
    keys_url: str = ""
    algorithms: Annotated[
        tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...],
        Field(min_length=1),
    ] = ("RS256", "ES256")
    name_claim: Annotated[str, Field(min_length=1)] = "sub"
    groups_claim: Annotated[str, Field(min_length=1)] = "groups"
    roles: dict[str, Role] = Field(default_factory=dict)


class ColonySettings(_Settings):
    """Settings of ``coral colony start``.

    Attributes:
        listen: HOST:PORT to serve gRPC on.
        agent_listen: HOST:PORT to serve agents on, by mutual TLS; empty for port 8083 on the host of ``listen``.
        state_dir: Where the databases are.
        agent_certificate_s: For how long an agent's certificate is good; it renews it after two thirds of that.
        server_certificate_s: Likewise the colony's own.
        server_names: Host names and addresses by which users reach it, besides those that ``coral colony init`` was given.
        metrics_listen: HOST:PORT to serve metrics on over HTTP, to whoever reaches it; empty for nowhere.
        heartbeat_ms: How often agents are asked to report.
        heartbeats_per_s: How many reports may come in a second: where there are more agents, they are asked less often.
        offline_after_ms: An agent that was silent for so long, and for two and a half of its intervals, is offline.
        session_retention_s: For how long ended sessions and their events are kept.
        max_events_bytes: How much room the events of all sessions may take: beyond it those of the sessions that ended first
            go. 0: any.
        keep_free_bytes: How much of the disk is to stay free: below it events go likewise.
        audit_retention_s: For how long at least records of the audit log are kept.
        audit_copy_bytes: How large a file of the audit log's JSON Lines copy becomes before another is begun.
        audit_failure: What becomes of running sessions while the audit log cannot be written: ``keep`` or ``detach``. New
            ones are refused in any case.
        min_free_bytes: Below so much free space events are dropped, and counted.
        max_sessions: How many sessions may run at once, in all.
        max_sessions_per_user: Of one user.
        max_sessions_per_service: Of one service.
        max_sessions_per_agent: On one agent.
        slot_wait_s: How long an attach over one of these limits waits for a session to end; 0 refuses it at once.
        max_calls_per_user: How many calls, streams among them, one user may have under way.
        calls_per_s: How many calls a second one user may make, for long.
        calls_burst: How many at once, before that counts.
        refusals_per_s: How many calls a second without a valid credential are answered to one address, for long.
        max_connections: How many connections each port takes.
        oidc: The identity provider whose tokens count beside the colony's own; none if not given.
        policy_dir: The folder of further Cedar policies, ``*.cedar``; empty for the default ones alone. It is read again when
            something in it changes.
        approval_s: For how long a request for somebody's approval waits, and for how long an approval is good.
        environment: Where the services run, such as ``prod``, for policies; a service's label ``env`` wins.
        labels: Of services, for policies: a glob over services to names and values; of several that match a later one wins.
    """

    daemon = "colony"
    env_prefix = "CORAL_COLONY__"

    listen: str = "127.0.0.1:8081"
    agent_listen: str = ""
    state_dir: Path = Field(default_factory=places.state_dir)
    agent_certificate_s: Count = 30 * 86_400
    server_certificate_s: Count = 90 * 86_400
    server_names: tuple[str, ...] = ()
    metrics_listen: str = ""
    heartbeat_ms: Count = 1000
    heartbeats_per_s: Count = 333
    offline_after_ms: Count = 5000
    session_retention_s: Count = 604_800
    max_events_bytes: Annotated[int, Field(ge=0)] = 0
    keep_free_bytes: Annotated[int, Field(ge=0)] = 512 * _MIB
    audit_retention_s: Count = 31_536_000
    audit_copy_bytes: Count = 64 * _MIB
    audit_failure: Literal["keep", "detach"] = "keep"
    min_free_bytes: Annotated[int, Field(ge=0)] = 256 * _MIB
    max_sessions: Count = 1000
    max_sessions_per_user: Count = 10
    max_sessions_per_service: Count = 20
    max_sessions_per_agent: Count = 64
    slot_wait_s: Annotated[float, Field(ge=0, le=60)] = 5.0
    max_calls_per_user: Count = 64
    calls_per_s: Count = 100
    calls_burst: Count = 400
    refusals_per_s: Count = 5
    max_connections: Count = 4096
    oidc: IdentityProvider | None = None
    policy_dir: Annotated[str, Field(pattern="^(/.*)?$")] = ""
    approval_s: Annotated[int, Field(ge=10, le=86_400)] = 900
    environment: Label = ""
    labels: dict[Label, dict[Label, Label]] = Field(default_factory=dict)


class ServicePattern(BaseModel):
    """Names the processes that match as one service. Patterns left empty match everything; at least one is given.

    Attributes:
        name: Of the service.
        executable: Glob over the path of the program.
        cmdline: Regular expression searched for in the command line, its arguments joined by spaces.
        unit: Glob over the systemd unit.
        container: Glob over the container's or pod's name or id.
        sdk_addr: Where the service's SDK answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    executable: str = ""
    cmdline: str = ""
    unit: str = ""
    container: str = ""
    sdk_addr: str = ""


class Denial(BaseModel):
    """Forbids probing, and looking into, what matches. Patterns left empty match everything; at least one is given.

    Attributes:
        executable: Glob over the path of the program, or over its base name when the pattern has no slash.
        unit: Glob over the systemd unit.
        user: Name or number of the user as whom the process runs.
        service: Glob over the service.
        function: Glob over the name of the function, as ``coral function list`` shows it, and over its other symbols.
        reason: What to tell who is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    executable: str = ""
    unit: str = ""
    user: str = ""
    service: str = ""
    function: str = ""
    reason: Annotated[str, Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _has_a_pattern(self) -> Denial:
        if not (self.executable or self.unit or self.user or self.service or self.function):
            raise ValueError("it has no pattern, and would deny everything (executable: '*' does that)")
        return self


_LOGIN = "it lets people in: their passwords and keys pass through it"
_SECRETS = "it keeps secrets"
_INIT = "the host depends on it"
DENIED_BY_DEFAULT = tuple(
    Denial(executable=executable, reason=reason)
    for reason, executables in (
        (_LOGIN, ("sshd", "sshd-*", "login", "su", "sudo", "pkexec", "polkitd", "unix_chkpwd")),
        (_SECRETS, ("ssh-agent", "gpg-agent", "gnome-keyring-daemon", "kwalletd*", "vault", "bao")),
        (_INIT, ("systemd", "systemd-*")),
    )
    for executable in executables
)
"""What no agent probes unless it is told that it may. Coral's own processes are not in here: they are never instances."""


class AgentSettings(_Settings):
    """Settings of ``coral agent start``.

    Attributes:
        listen: HOST:PORT to serve gRPC on.
        advertise: HOST:PORT where the colony reaches it; empty for the address that it listens on.
        state_dir: Where its id and its certificate are kept.
        colony: HOST:PORT of the colony it reports to.
        metrics_listen: As for the colony.
        join: The invitation with which it joins a colony, once; ``@FILE`` for one in a file, ``-`` for standard input.
        agent_id: Its name; empty for the one kept in the state directory, at first the host's name.
        services: Which processes are which service; the first that applies counts.
        ring_bytes: Size of the kernel's ring of events.
        window_bytes: How much of each collector's events is kept for readers.
        max_open_calls: How many calls may be tracked at once.
        max_collectors: How many collectors may run at once.
        max_sites: In how many places of programs one collector may probe.
        session_events_per_s: How many events a second one collector may report; those beyond are ``rate_limited``. 0: any.
        events_per_s: How many all may report together, for longer than a moment; the one that reports most is ended then.
        debug_folders: Where debug files are looked for, by build id and by name, as each process sees them and on the host.
        deny: What this agent never probes, whoever asks, besides what is denied by default.
        deny_by_default: What is denied unless this is given: those who do give the whole list, ``[]`` for none.
        allow_values: Whether arguments and return values may leave this host.
    """

    daemon = "agent"
    env_prefix = "CORAL_AGENT__"

    listen: str = "127.0.0.1:8080"
    advertise: str = ""
    state_dir: Path = Field(default_factory=places.state_dir)
    colony: str = "127.0.0.1:8081"
    metrics_listen: str = ""
    join: SecretStr = SecretStr("")
    agent_id: str = ""
    services: tuple[ServicePattern, ...] = ()
    ring_bytes: Count = 16 * _MIB
    window_bytes: Count = 128 * _MIB
    max_open_calls: Count = 131_072
    max_collectors: Count = 64
    max_sites: Count = 10_000
    session_events_per_s: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    events_per_s: Count = 2_000_000
    debug_folders: tuple[Folder, ...] = ("/usr/lib/debug",)
    deny: tuple[Denial, ...] = ()
    deny_by_default: tuple[Denial, ...] = DENIED_BY_DEFAULT
    allow_values: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Values that one place gives, and how that place calls itself and its keys in a message."""

    place: str
    values: Mapping[str, Any]
    key_prefix: str = ""
    upper: bool = False

    def named(self, key: str) -> str:
        """The key as it is written at that place."""
        return self.key_prefix + (key.upper() if self.upper else key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as it counts.

    Attributes:
        key: ``colony.listen``, ``agent.services``.
        value: As JSON has it.
        source: Which place gave it: the environment, a file's path, or ``default``.
    """

    key: str
    value: Any
    source: str


_T = TypeVar("_T", bound=_Settings)


def load_colony_settings(flags: Mapping[str, object], config_path: Path | None = None) -> ColonySettings:
    """The colony's settings.

    Args:
        flags: Values from the command line by field name; None stands for a flag that was not given.
        config_path: The only file to read; None for the usual ones, as far as they exist.

    Raises:
        InvalidArgument: A file cannot be read, a key is unknown or a value is wrong; names the place and the key.
    """
    return _load(ColonySettings, "colony", flags, config_path)[0]


def load_agent_settings(flags: Mapping[str, object], config_path: Path | None = None) -> AgentSettings:
    """The agent's settings; as ``load_colony_settings``. ``CORAL_COLONY``, which names the colony for every command, counts
    for ``colony`` when ``CORAL_AGENT__COLONY`` is not set.
    """
    return _load(AgentSettings, "agent", flags, config_path, _everywhere())[0]


def show_settings(config_path: Path | None = None) -> list[Setting]:
    """Every setting of colony and agent, and where its value comes from when no flag is given.

    Args:
        config_path: As for ``load_colony_settings``.

    Raises:
        InvalidArgument: Likewise.
    """
    loaded: list[tuple[str, _Settings, dict[str, _Source]]] = [
        ("colony", *_load(ColonySettings, "colony", {}, config_path)),
        ("agent", *_load(AgentSettings, "agent", {}, config_path, _everywhere())),
    ]
    return [
        Setting(key=f"{daemon}.{key}", value=value, source=origin[key].place if key in origin else "default")
        for daemon, settings, origin in loaded
        for key, value in settings.model_dump(mode="json").items()
    ]


def _everywhere() -> list[_Source]:
    """The variable that names the colony for every command."""
    colony = os.environ.get("CORAL_COLONY", "")
    return [_Source(place="the environment", values={"colony": colony}, key_prefix="CORAL_", upper=True)] if colony else []


def _load(
    cls: type[_T], daemon: str, flags: Mapping[str, object], config_path: Path | None, extra: list[_Source] | None = None
) -> tuple[_T, dict[str, _Source]]:
    """The settings, and by key the place that gave it; what has its default is not in there."""
    given = {key: value for key, value in flags.items() if value is not None}
    sources = [
        *_file_sources(daemon, config_path),
        *(extra or ()),
        _environment(cls),
        _Source(place="the command line", values=given, key_prefix="--"),
    ]
    known = cls.model_fields
    merged: dict[str, Any] = {}
    origin: dict[str, _Source] = {}
    for source in sources:
        for key, value in source.values.items():
            if key not in known:
                raise InvalidArgument(
                    f"{source.named(str(key))} in {source.place} is not a setting of the {daemon}.",
                    hint=f"It knows {', '.join(known)}.",
                )
            merged[key] = value
            origin[key] = source
    try:
        settings = cls(**merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        source = origin[key]
        inner = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"][1:])
        raise InvalidArgument(
            f"{source.named(key)}{inner} in {source.place} is wrong: {first['msg']}.", hint=_form(cls, key)
        ) from None
    settings._places.update({key: source.place for key, source in origin.items()})
    return settings, origin


def _form(cls: type[_Settings], key: str) -> str:
    default = cls.model_fields[key].get_default(call_default_factory=True, validated_data={})
    return (
        f"See the documentation of {key}." if default == "" or isinstance(default, tuple) else f"Its default is {default!s}."
    )


def _environment(cls: type[_Settings]) -> _Source:
    """What the environment gives, lists as JSON; keys that are no settings are kept, so that they can be refused."""
    values: dict[str, Any] = {
        name.removeprefix(cls.env_prefix).lower(): text
        for name, text in os.environ.items()
        if name.startswith(cls.env_prefix)
    }
    for key, text in values.items():
        if key in cls.model_fields and _is_compound(cls, key):
            try:
                values[key] = json.loads(text)
            except ValueError as error:
                raise InvalidArgument(
                    f"{cls.env_prefix}{key.upper()} in the environment is not JSON: {error}.",
                    hint="Lists and sections are given as JSON in the environment.",
                ) from None
    return _Source(place="the environment", values=values, key_prefix=cls.env_prefix, upper=True)


def _is_compound(cls: type[_Settings], key: str) -> bool:
    """Whether a setting is a list or a section; those are the ones whose default is one, or None."""
    default = cls.model_fields[key].get_default(call_default_factory=True, validated_data={})
    return default is None or isinstance(default, tuple | dict)


def _file_sources(daemon: str, config_path: Path | None) -> Iterator[_Source]:
    paths = places.config_files(daemon) if config_path is None else (config_path,)
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if config_path is None:
                continue
            raise InvalidArgument(f"{path} does not exist.", hint="Give another file with --config.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{path} cannot be read: {error}.", hint="Make it readable UTF-8, or remove it.") from None
        yield _file_source(path, text, daemon)


def _file_source(path: Path, text: str, daemon: str) -> _Source:
    import yaml  # here: most daemons are started without a file

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidArgument(f"{path} is not YAML: {' '.join(str(error).split())}.", hint="Correct it there.") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise InvalidArgument(f"{path} does not hold keys and values.", hint="Write lines such as listen: 127.0.0.1:8081.")
    # The agent's own key "colony" is an address, so a mapping tells a section from it.
    sections = {name: document[name] for name in ("colony", "agent") if isinstance(document.get(name), dict)}
    if not sections:
        return _Source(place=str(path), values=document)
    for key in document:
        if key not in sections:
            raise InvalidArgument(f"{key} in {path} is in no section.", hint="Put it under colony: or agent:.")
    return _Source(place=str(path), values=sections.get(daemon, {}), key_prefix=f"{daemon}.")
