"""Tokens: their form, what is kept of them, and that they do not show themselves."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coral.model.errors import Unauthenticated
from coral.trust.tokens import Token, TokenKind, new_token, parse_token


def test_a_token_is_read_back_as_it_was_made() -> None:
    """Its text names kind and id, and what is kept is the hash of all of it."""
    token = new_token(TokenKind.USER)
    again = parse_token(token.text, TokenKind.USER)
    assert again == token
    assert token.text == f"coral_user_{token.token_id}_{token.secret}"
    assert token.digest == hashlib.sha256(token.text.encode()).digest()
    assert again.matches(token.digest)


def test_each_token_is_another() -> None:
    """Nothing of two tokens is the same, and the secret has 256 bits."""
    tokens = [new_token(TokenKind.INVITE) for _ in range(100)]
    assert len({token.token_id for token in tokens}) == len({token.secret for token in tokens}) == 100
    assert all(len(token.secret) * 5 >= 256 for token in tokens)


def test_only_the_right_secret_matches() -> None:
    """A token with the id of one and the secret of another is neither."""
    one, other = new_token(TokenKind.USER), new_token(TokenKind.USER)
    mixed = Token(kind=TokenKind.USER, token_id=one.token_id, secret=other.secret)
    assert not mixed.matches(one.digest)
    assert not mixed.matches(other.digest)
    assert not Token(kind=TokenKind.INVITE, token_id=one.token_id, secret=one.secret).matches(one.digest)


def test_a_token_does_not_show_its_secret() -> None:
    """What ends up in a log or a traceback does not carry it."""
    token = new_token(TokenKind.USER)
    assert token.secret not in repr(token)
    assert token.secret not in str(token)


def test_a_token_of_another_kind_is_refused() -> None:
    """An agent's invite does not sign in a user; the message says where users' tokens come from, and not which was given."""
    invite = new_token(TokenKind.INVITE)
    with pytest.raises(Unauthenticated, match=r"another kind.*coral_user_.*coral token create") as caught:
        parse_token(invite.text, TokenKind.USER)
    assert invite.secret not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", " ", "a", "=", "\0"])
def test_what_is_nearly_a_token_is_none(end: str) -> None:
    """Nothing may follow."""
    with pytest.raises(Unauthenticated, match="no Coral token"):
        parse_token(new_token(TokenKind.USER).text + end, TokenKind.USER)


@settings(max_examples=25)
@given(st.text(max_size=200) | st.from_regex(r"coral_[a-z]{1,8}_[a-z2-7]{10,20}_[a-z2-9]{40,60}", fullmatch=True))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is given is a token or is refused, and is not repeated in the refusal."""
    try:
        token = parse_token(text, TokenKind.USER)
    except Unauthenticated as error:
        assert len(text) < 30 or text not in str(error)
    else:
        assert token.text == text
