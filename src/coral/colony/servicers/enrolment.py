"""``coral.colony.v1.EnrolmentService``: hosts join, renew, and are put out."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coral.colony.audit import Audit
from coral.colony.enrolment import Enrolment
from coral.colony.expulsion import Expulsion
from coral.model.principal import current_principal
from coral.model.text import check_name
from coral.trust.colony_keys import ColonyKeys
from coral.trust.commands import public_pem
from coral.trust.invitation import invitation_text
from coral.wire._generated.colony.v1 import enrolment_pb2, enrolment_pb2_grpc
from coral.wire.convert import duration_ns, timestamp

DEFAULT_INVITE_S = 600.0


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Answers ``coral agent invite|revoke``, and agents.

    Args:
        enrolment: Which hosts belong to the colony.
        expulsion: Puts one out.
        keys: The colony's keys as they are now.
        agent_port: Where it serves agents, once it does.
        audit: Where it is written down, before it is done.
    """

    def __init__(
        self,
        *,
        enrolment: Enrolment,
        expulsion: Expulsion,
        keys: Callable[[], ColonyKeys],
        agent_port: Callable[[], int],
        audit: Audit,
    ) -> None:
        self._enrolment = enrolment
        self._expulsion = expulsion
        self._keys = keys
        self._agent_port = agent_port
        self._audit = audit

    async def CreateInvite(
        self, request: enrolment_pb2.CreateInviteRequest, context: Any
    ) -> enrolment_pb2.CreateInviteResponse:
        """Invites a host; the answer is the only place where the token ever stands."""
        who = current_principal()
        entry = self._audit.entry(who, "CreateInvite", agent_id=request.agent_id, reason=request.reason)
        async with self._audit.noting(entry):
            check_name(request.agent_id, "agent_id", required=False)
            check_name(request.reason, "reason", required=False)
            token, invitation = await self._enrolment.invite(
                by=who.name,
                lifetime_s=duration_ns(request.expires) / 1e9 if request.HasField("expires") else DEFAULT_INVITE_S,
                agent_id=request.agent_id,
            )
            return enrolment_pb2.CreateInviteResponse(
                token=invitation_text(token, self._keys().authority.pair.certificate),
                expires_at=timestamp(invitation.expires_at_ns),
                invite_id=invitation.invite_id,
            )

    async def JoinAgent(self, request: enrolment_pb2.JoinAgentRequest, context: Any) -> enrolment_pb2.JoinAgentResponse:
        """Lets the host in that has shown an invitation."""
        who = current_principal()
        async with self._audit.noting(self._audit.entry(who, "JoinAgent", agent_id=request.agent_id)):
            agent_id = check_name(request.agent_id, "agent_id")
            certificate = await self._enrolment.join(who.credential_id, agent_id, request.certificate_request)
            keys = self._keys()
            return enrolment_pb2.JoinAgentResponse(
                certificate=certificate,
                colony_id=keys.colony_id,
                command_key=public_pem(keys.command_key),
                agent_port=self._agent_port(),
            )

    async def RenewAgent(self, request: enrolment_pb2.RenewAgentRequest, context: Any) -> enrolment_pb2.RenewAgentResponse:
        """A new certificate for an agent that has shown the one before."""
        entry = self._audit.entry(current_principal(), "RenewAgent", agent_id=request.agent_id)
        async with self._audit.noting(entry):
            certificate = await self._enrolment.renew(request.agent_id, request.certificate_request)
            return enrolment_pb2.RenewAgentResponse(certificate=certificate, agent_port=self._agent_port())

    async def RevokeAgent(self, request: enrolment_pb2.RevokeAgentRequest, context: Any) -> enrolment_pb2.RevokeAgentResponse:
        """Puts an agent out."""
        who = current_principal()
        entry = self._audit.entry(who, "RevokeAgent", agent_id=request.agent_id, reason=request.reason)
        async with self._audit.noting(entry):
            check_name(request.reason, "reason", required=False)
            certificates, collectors = await self._expulsion.expel(check_name(request.agent_id, "agent_id"), by=who.name)
            return enrolment_pb2.RevokeAgentResponse(certificates=certificates, collectors=collectors)
