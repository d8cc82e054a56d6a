"""Which hosts belong to the colony: invitations, the certificates that agents got for them, and their end.

Kept in memory, written through to the control file before anything counts. A certificate is good while the colony knows its
serial number and has not ended it; that TLS has verified the rest is the caller's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from coral.colony.store import enrolment as rows
from coral.colony.store.database import Database
from coral.colony.store.enrolment import Invitation, Issued
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unauthenticated
from coral.trust.authority import Authority, Holder, holder_of, requested_key_digest
from coral.trust.tokens import Token, TokenKind, new_token, parse_token

MIN_INVITE_S, MAX_INVITE_S = 1.0, 7 * 86_400.0
_MAX_OPEN = 1000
_KEPT_PER_AGENT = 2
"""Certificates of an agent that count at a time: the newest, and the one that it is still connected with."""

_log = structlog.get_logger(__name__)


class Enrolment:
    """Invites, issues, renews and ends."""

    def __init__(
        self,
        control: Database,
        authority: Authority,
        *,
        agent_lifetime_s: float,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Knows nothing until ``load``.

        Args:
            control: The control file.
            authority: Issues the certificates.
            agent_lifetime_s: For how long one is good.
            clock_ns: The wall clock.
        """
        self._clock_ns = clock_ns
        self._control = control
        self._authority = authority
        self._agent_lifetime_s = agent_lifetime_s
        self._invitations: dict[str, Invitation] = {}
        self._certificates: dict[str, Issued] = {}
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Reads what is kept, after dropping what has ended by itself."""
        now_ns = self._clock_ns()
        await self._control.write(lambda connection: rows.prune(connection, now_ns))
        invitations, certificates = await self._control.read(rows.load)
        self._invitations = {invitation.invite_id: invitation for invitation in invitations}
        self._certificates = {issued.serial: issued for issued in certificates}

    async def invite(self, *, by: str, lifetime_s: float, agent_id: str = "") -> tuple[Token, Invitation]:
        """A new invitation, good once.

        Args:
            by: Who makes it.
            lifetime_s: For how long it is good.
            agent_id: Who may join with it; empty for an agent of any name that is free.

        Raises:
            InvalidArgument: It would be good for too short or too long.
            ResourceExhausted: There are too many that nobody has used.
        """
        if not MIN_INVITE_S <= lifetime_s <= MAX_INVITE_S:
            raise InvalidArgument(
                f"An invitation cannot be good for {lifetime_s:g} s.", hint="Between 1s and 168h; 10m is the default."
            )
        now_ns = self._clock_ns()
        self._forget(now_ns)
        if len(self._invitations) >= _MAX_OPEN:
            raise ResourceExhausted(f"There are {_MAX_OPEN:,} invitations.", hint="Wait until some of them end.")
        token = new_token(TokenKind.INVITE)
        invitation = Invitation(
            invite_id=token.token_id,
            digest=token.digest,
            agent_id=agent_id,
            created_at_ns=now_ns,
            created_by=by,
            expires_at_ns=now_ns + round(lifetime_s * 1e9),
        )
        await self._control.write(lambda connection: rows.put_invitation(connection, invitation))
        self._invitations[invitation.invite_id] = invitation
        return token, invitation

    def check_invitation(self, text: str) -> str:
        """The id of the invitation that a token is of.

        Args:
            text: The token, without the certificate that it may carry.

        Raises:
            Unauthenticated: It is none, unknown, or has ended. That it was used is found out in ``join``.
        """
        token = parse_token(text, TokenKind.INVITE)
        invitation = self._invitations.get(token.token_id)
        # Compared with something in any case, so that the time does not tell which ids there are.
        if not token.matches(invitation.digest if invitation else bytes(32)) or invitation is None:
            raise Unauthenticated("This invitation is not known.", hint=_INVITE)
        if self._clock_ns() >= invitation.expires_at_ns:
            raise Unauthenticated("This invitation has expired.", hint=_INVITE)
        return invitation.invite_id

    async def join(self, invite_id: str, agent_id: str, request_der: bytes) -> bytes:
        """Lets a host in, once; the same host with the same key gets an answer again. Its certificate, PEM.

        Args:
            invite_id: Of the invitation that it has shown.
            agent_id: What it calls itself.
            request_der: Its request for a certificate.

        Raises:
            Unauthenticated: The invitation has been used, or has ended.
            FailedPrecondition: It is for another agent, or there is an agent of that name.
            InvalidArgument: The request is none.
        """
        key = requested_key_digest(request_der)
        async with self._turn:
            invitation = self._invitations.get(invite_id)
            if invitation is None or self._clock_ns() >= invitation.expires_at_ns:
                raise Unauthenticated("This invitation has expired.", hint=_INVITE)
            again = invitation.used_by == agent_id and invitation.used_key == key
            if invitation.used_by and not again:
                raise Unauthenticated("This invitation was used already; it is good once.", hint=_INVITE)
            if invitation.agent_id not in ("", agent_id):
                raise FailedPrecondition(
                    f"This invitation is for agent {invitation.agent_id!r}, not for {agent_id!r}.",
                    hint="Start the agent under that name, or have another invitation made.",
                )
            if self.is_enrolled(agent_id) and not again:
                raise FailedPrecondition(
                    f"There is an agent {agent_id!r}, whose certificate is good.",
                    hint=f"If this host takes its place, run `coral agent revoke {agent_id}` first; else set agent_id.",
                )
            certificate, issued = self._issue(agent_id, request_der)
            used = replace(invitation, used_by=agent_id, used_key=key)
            await self._control.write(lambda connection: rows.use_invitation(connection, used, issued))
            self._invitations[invite_id] = used
            self._certificates[issued.serial] = issued
        _log.info("agent joined", agent_id=agent_id, invited_by=invitation.created_by, serial=issued.serial)
        return certificate

    async def renew(self, agent_id: str, request_der: bytes) -> bytes:
        """A new certificate for an agent that is enrolled, PEM. The one before counts until it ends; older ones end now.

        Raises:
            Unauthenticated: The agent was revoked meanwhile.
            InvalidArgument: The request is none.
        """
        async with self._turn:
            if not self.is_enrolled(agent_id):
                raise Unauthenticated(f"Agent {agent_id!r} does not belong to this colony any more.", hint=_JOIN)
            certificate, issued = self._issue(agent_id, request_der)
            older = [each.serial for each in self._good(agent_id)[: 1 - _KEPT_PER_AGENT]]
            await self._control.write(lambda connection: rows.replace_certificates(connection, older, issued))
            self._certificates[issued.serial] = issued
            for serial in older:
                del self._certificates[serial]
        _log.info("certificate renewed", agent_id=agent_id, serial=issued.serial)
        return certificate

    async def revoke(self, agent_id: str) -> int:
        """Ends every certificate of an agent, and the invitations by which it came or could come back.

        Returns:
            How many certificates were good until now.

        Raises:
            NotFound: It has none.
        """
        async with self._turn:
            good = self._good(agent_id)
            if not good:
                raise NotFound(
                    f"No agent {agent_id!r} has a certificate of this colony.", hint="`coral agent list` has all agents."
                )
            now_ns = self._clock_ns()
            serials = [each.serial for each in good]
            await self._control.write(lambda connection: rows.revoke_agent(connection, agent_id, serials, now_ns))
            for each in good:
                self._certificates[each.serial] = replace(each, revoked_at_ns=now_ns)
            self._invitations = {
                key: each for key, each in self._invitations.items() if agent_id not in (each.agent_id, each.used_by)
            }
        _log.warning("agent revoked", agent_id=agent_id, certificates=len(good))
        return len(good)

    def check_agent(self, holder: Holder) -> None:
        """Returns when the certificate is one that an agent of this colony has.

        Raises:
            Unauthenticated: It names no agent, was revoked, has ended, or is not known.
        """
        issued = self._certificates.get(holder.serial)
        if holder.kind != "agent" or issued is None or issued.agent_id != holder.id:
            raise Unauthenticated("This certificate is not that of an agent of this colony.", hint=_JOIN)
        if issued.revoked_at_ns is not None:
            raise Unauthenticated(f"The certificate of agent {holder.id!r} was revoked.", hint=_JOIN)
        if self._clock_ns() >= issued.expires_at_ns:
            raise Unauthenticated(f"The certificate of agent {holder.id!r} has expired.", hint=_JOIN)

    def is_enrolled(self, agent_id: str) -> bool:
        """Whether an agent has a certificate that is good now."""
        return bool(self._good(agent_id))

    def _good(self, agent_id: str) -> list[Issued]:
        """The certificates of an agent that count, oldest first."""
        now_ns = self._clock_ns()
        return sorted(
            (
                each
                for each in self._certificates.values()
                if each.agent_id == agent_id and each.revoked_at_ns is None and each.expires_at_ns > now_ns
            ),
            key=lambda each: each.issued_at_ns,
        )

    def _issue(self, agent_id: str, request_der: bytes) -> tuple[bytes, Issued]:
        certificate = self._authority.issue_agent(request_der, agent_id, lifetime_s=self._agent_lifetime_s)
        holder = holder_of(certificate)
        issued = Issued(
            serial=holder.serial, agent_id=agent_id, issued_at_ns=self._clock_ns(), expires_at_ns=holder.expires_at_ns
        )
        return certificate, issued

    def _forget(self, now_ns: int) -> None:
        """Drops invitations and certificates that have ended by themselves; the file's are dropped at the next start."""
        self._invitations = {key: each for key, each in self._invitations.items() if each.expires_at_ns > now_ns}
        self._certificates = {key: each for key, each in self._certificates.items() if each.expires_at_ns > now_ns}


_INVITE = "Ask an admin of the colony for another one: `coral agent invite`."
_JOIN = "Have it join again with `coral agent start --join TOKEN`; `coral agent invite` makes the token."
