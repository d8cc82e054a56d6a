"""What ``coral agent start --join`` takes: a token, and the certificate of the authority that the colony is known by.

``coral_invite_ID_SECRET.CA``: after the dot the certificate, DER in base64url without padding (RFC 4648, section 5). So the
first contact is verified like every later one, and the token is sent to nobody but the colony that made it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.trust.authority import UNREADABLE, colony_id_of
from coral.trust.tokens import Token, TokenKind, parse_token

_MAX_TEXT = 8192
_HINT = "Give what `coral agent invite` printed, all of it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a host needs to join. Its token does not show itself.

    Attributes:
        token: Proves that it was invited.
        ca_pem: The certificate by which it knows the colony.
    """

    token: Token
    ca_pem: bytes = field(repr=False)


def invitation_text(token: Token, ca_pem: bytes) -> str:
    """An invitation as it is given to a host."""
    der = x509.load_pem_x509_certificate(ca_pem).public_bytes(serialization.Encoding.DER)
    return f"{token.text}.{base64.urlsafe_b64encode(der).decode().rstrip('=')}"


def parse_invitation(text: str) -> Invitation:
    """An invitation from its text.

    Raises:
        InvalidArgument: It is none. The message does not repeat it.
        Unauthenticated: Its token is none.
    """
    text = text.strip()
    head, dot, tail = text.partition(".")
    if not dot or len(text) > _MAX_TEXT:
        raise InvalidArgument("That is no invitation.", hint=_HINT)
    token = parse_token(head, TokenKind.INVITE)
    try:
        der = base64.b64decode(tail + "=" * (-len(tail) % 4), altchars=b"-_", validate=True)
        ca_pem = x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
        colony_id_of(ca_pem)
    except (*UNREADABLE, FailedPrecondition):
        raise InvalidArgument("The invitation's certificate cannot be read.", hint=_HINT) from None
    return Invitation(token=token, ca_pem=ca_pem)
