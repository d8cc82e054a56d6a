"""What each RPC of the colony does, to what, and who may ask for it at all: the one table that every call is looked up in.

A method that is not in here is served to nobody: the colony does not start with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from google.protobuf.message import Message

from coral.model.principal import Kind, Role
from coral.model.probe import Mode
from coral.model.session import Session
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire.convert import requested_duration_ns

_USERS = frozenset({Kind.USER})
_AGENTS = frozenset({Kind.AGENT})


class Reach(StrEnum):
    """What an action is about."""

    SERVICE = "service"
    """One service, which the request names."""
    SESSION = "session"
    """One session, and by that the service and function that it is of."""
    LISTING = "listing"
    """Many services; the answer has those that the caller may see."""
    COLONY = "colony"
    """The colony as a whole."""
    AGENT = "agent"
    """An agent, which asks for itself."""
    SELF = "self"
    """Who asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What an RPC does.

    Attributes:
        name: The RPC's own name, unique in the colony: what policies and the audit log call it.
        reach: What it is about.
        role: The least role of a user who may, where no policy says otherwise; None for what is no user's business.
        callers: Which kinds of caller may at all.
    """

    name: str
    reach: Reach
    role: Role | None = None
    callers: frozenset[Kind] = _USERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a call is about, and how: as its request says, completed from the session that it names.

    Attributes:
        service_name: Empty where it is about none, or many.
        function_name: Of an attach, or of the session.
        session_id: Of a call about a session.
        agent_id: The agent that it names.
        owner: Who requested the session; empty where there is none.
        duration_ns: Of an attach.
        mode: Of an attach: ``events`` or ``count``.
        captures_values: Whether an attach asks for arguments or return values, or filters by them.
        reason: What the caller says that it is for.
        request: The whole request, for what else there is to know.
    """

    service_name: str = ""
    function_name: str = ""
    session_id: str = ""
    agent_id: str = ""
    owner: str = ""
    duration_ns: int | None = None
    mode: str = ""
    captures_values: bool = False
    reason: str = ""
    request: Message | None = field(default=None, repr=False, compare=False)

    def of(self, session: Session) -> Resource:
        """Completed from the session that it names; what the request says of service and function does not count then."""
        return replace(
            self, service_name=session.service_name, function_name=session.function_name, owner=session.requested_by
        )


def _table(service: str, *actions: Action) -> dict[str, Action]:
    return {f"/{service}/{action.name}": action for action in actions}


ACTIONS: Mapping[str, Action] = {
    **_table(
        "coral.colony.v1.DebugService",
        Action(name="AttachUprobe", reach=Reach.SERVICE, role=Role.OPERATOR),
        Action(name="DetachUprobe", reach=Reach.SESSION, role=Role.OPERATOR),
        Action(name="UpdateProbeFilter", reach=Reach.SESSION, role=Role.OPERATOR),
        Action(name="QueryUprobeEvents", reach=Reach.SESSION, role=Role.VIEWER),
        Action(name="ListDebugSessions", reach=Reach.LISTING, role=Role.VIEWER),
        Action(name="GetDebugResults", reach=Reach.SESSION, role=Role.VIEWER),
        Action(name="FollowUprobeEvents", reach=Reach.SESSION, role=Role.VIEWER),
    ),
    **_table(
        "coral.colony.v1.RegistryService",
        Action(name="RegisterAgent", reach=Reach.AGENT, callers=_AGENTS),
        Action(name="Heartbeat", reach=Reach.AGENT, callers=_AGENTS),
        Action(name="ListAgents", reach=Reach.COLONY, role=Role.VIEWER),
        Action(name="ListServices", reach=Reach.LISTING, role=Role.VIEWER),
    ),
    **_table(
        "coral.colony.v1.InspectService",
        Action(name="QueryDatabase", reach=Reach.COLONY, role=Role.INVESTIGATOR),
        Action(name="ListFunctions", reach=Reach.SERVICE, role=Role.VIEWER),
        Action(name="ExplainFunction", reach=Reach.SERVICE, role=Role.VIEWER),
    ),
    **_table(
        "coral.colony.v1.AccessService",
        Action(name="WhoAmI", reach=Reach.SELF, role=Role.VIEWER, callers=frozenset({Kind.USER, Kind.AGENT})),
        Action(name="CreateToken", reach=Reach.COLONY, role=Role.ADMIN),
        Action(name="ListTokens", reach=Reach.COLONY, role=Role.ADMIN),
        Action(name="RevokeToken", reach=Reach.COLONY, role=Role.ADMIN),
    ),
    **_table(
        "coral.colony.v1.PolicyService",
        Action(name="CheckPolicies", reach=Reach.COLONY, role=Role.ADMIN),
        # About others only where the policies let the caller; its handler asks them.
        Action(name="ExplainPolicy", reach=Reach.SELF, role=Role.VIEWER),
        Action(name="ListApprovals", reach=Reach.LISTING, role=Role.VIEWER),
        # Everybody may try; its handler asks whether the caller may ApproveAttach what is to be approved.
        Action(name="DecideApproval", reach=Reach.LISTING, role=Role.VIEWER),
    ),
    **_table(
        "coral.colony.v1.AuditService",
        Action(name="QueryAudit", reach=Reach.COLONY, role=Role.ADMIN),
        Action(name="ExportAudit", reach=Reach.COLONY, role=Role.ADMIN),
        Action(name="VerifyAudit", reach=Reach.COLONY, role=Role.ADMIN),
        Action(name="PurgeData", reach=Reach.COLONY, role=Role.ADMIN),
    ),
    **_table(
        "coral.colony.v1.EnrolmentService",
        Action(name="CreateInvite", reach=Reach.COLONY, role=Role.ADMIN),
        Action(name="JoinAgent", reach=Reach.AGENT, callers=frozenset({Kind.INVITED})),
        Action(name="RenewAgent", reach=Reach.AGENT, callers=_AGENTS),
        Action(name="RevokeAgent", reach=Reach.COLONY, role=Role.ADMIN),
    ),
}
"""By the full name of the method."""


def resource_of(request: Message) -> Resource:
    """What a request says that it is about. Texts are as the caller gave them: they may be anything."""
    fields = request.DESCRIPTOR.fields_by_name

    def text(name: str) -> str:
        return str(getattr(request, name)) if name in fields and fields[name].cpp_type == fields[name].CPPTYPE_STRING else ""

    resource = Resource(
        service_name=text("service_name"),
        function_name=text("function_name"),
        session_id=text("session_id"),
        agent_id=text("agent_id"),
        reason=text("reason"),
        request=request,
    )
    if not isinstance(request, debug_pb2.AttachUprobeRequest):
        return resource
    return replace(
        resource,
        duration_ns=requested_duration_ns(request),
        mode=request.config.mode or Mode.EVENTS,
        # A condition on values tells of them by which calls it lets through.
        captures_values=request.config.capture_args or request.config.capture_return or bool(request.filter.condition),
    )
