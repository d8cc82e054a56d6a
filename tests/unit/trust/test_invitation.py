"""What a host is given to join."""

from __future__ import annotations

import base64

import pytest

from coral.model.errors import CoralError, InvalidArgument, Unauthenticated
from coral.trust.authority import Authority, new_key
from coral.trust.invitation import invitation_text, parse_invitation
from coral.trust.tokens import TokenKind, new_token


def test_there_and_back() -> None:
    """An invitation carries its token and the certificate of the authority, in one word; white space around it counts for
    nothing, and neither shows in a repr.
    """
    authority, token = Authority.create("01COLONY"), new_token(TokenKind.INVITE)
    text = invitation_text(token, authority.pair.certificate)
    assert not any(character.isspace() for character in text)
    found = parse_invitation(f" {text}\n")
    assert (found.token, found.ca_pem) == (token, authority.pair.certificate)
    assert token.secret not in repr(found)


def test_what_is_no_invitation() -> None:
    """Halves, garbage, a user's token, and a certificate that is no authority's are refused without repeating any of it."""
    authority, token = Authority.create("01COLONY"), new_token(TokenKind.INVITE)
    ca = authority.pair.certificate
    good = invitation_text(token, ca)
    agent = authority.issue_colony(new_key().public_key(), [], lifetime_s=60)
    head, _, encoded = good.partition(".")
    strange = base64.urlsafe_b64decode(encoded + "==").replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x1e", 1)
    texts = [
        f"{head}.{base64.urlsafe_b64encode(strange).decode().rstrip('=')}",  # X.509 version 31
        "", token.text, f"{token.text}.", good[:-9], f"{good}!", f"x{good}", good + "A" * 9000,
        invitation_text(new_token(TokenKind.USER), ca), invitation_text(token, agent),
    ]  # fmt: skip
    for text in texts:
        with pytest.raises((InvalidArgument, Unauthenticated)) as refused:
            parse_invitation(text)
        error: CoralError = refused.value
        assert token.secret[:8] not in str(error)
        assert error.hint
