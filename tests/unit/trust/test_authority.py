"""The colony's certificate authority."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.trust.authority import (
    COLONY_DNS,
    Authority,
    KeyPair,
    agent_dns,
    check_pair,
    colony_id_of,
    holder_of,
    host_names_of,
    life_of,
    new_key,
    private_pem,
    public_key_of,
    request_for,
)

DAY_S = 86_400


def verified(ca: bytes, certificate: bytes, dns: str) -> bool:
    """Whether a TLS client that trusts ``ca`` and wants ``dns`` takes the certificate (RFC 5280)."""
    verifier = PolicyBuilder().store(Store([x509.load_pem_x509_certificate(ca)])).build_server_verifier(x509.DNSName(dns))
    try:
        verifier.verify(x509.load_pem_x509_certificate(certificate), [])
    except VerificationError:
        return False
    return True


def test_certificates_are_for_one_name() -> None:
    """Each agent's certificate passes for that agent's name only, the colony's for its own and its hosts'; none for another
    authority's.
    """
    authority, other = Authority.create("01COLONY"), Authority.create("01COLONY")
    a = authority.issue_agent(request_for(new_key(), "web-1"), "web-1", lifetime_s=DAY_S)
    b = authority.issue_agent(request_for(new_key(), "web-2"), "web-2", lifetime_s=DAY_S)
    colony = authority.issue_colony(new_key().public_key(), ["debug.example.com", "10.0.0.4", "::1"], lifetime_s=DAY_S)
    names = [agent_dns("web-1"), agent_dns("web-2"), COLONY_DNS, "debug.example.com"]
    taken = [[verified(authority.pair.certificate, each, name) for name in names] for each in (a, b, colony)]
    assert taken == [[True, False, False, False], [False, True, False, False], [False, False, True, True]]
    assert not any(verified(other.pair.certificate, each, name) for each in (a, b, colony) for name in names)
    assert host_names_of(colony) == ["debug.example.com", "10.0.0.4", "::1"]


@pytest.mark.parametrize("agent_id", ["web-1", "a/../b", "agent:x", "ünïcode %2F", "x" * 1024, "coral://colony/01COLONY"])
def test_holder(agent_id: str) -> None:
    """Whatever an agent is called, its certificate names exactly that agent, with serial and end."""
    authority = Authority.create("01COLONY")
    certificate = authority.issue_agent(request_for(new_key(), agent_id), agent_id, lifetime_s=3600)
    holder = holder_of(certificate)
    assert (holder.kind, holder.id) == ("agent", agent_id)
    assert holder.serial == f"{x509.load_pem_x509_certificate(certificate).serial_number:x}"
    begins_ns, ends_ns = life_of(certificate)
    assert ends_ns == holder.expires_at_ns
    assert abs(begins_ns - time.time_ns()) < 5e9
    assert abs(ends_ns - begins_ns - 3600e9) <= 1e9


def test_colony_is_no_agent() -> None:
    """The colony's certificate names the colony; the authority's own is nobody's, and says which colony it is of."""
    authority = Authority.create("01COLONY")
    colony = authority.issue_colony(new_key().public_key(), [], lifetime_s=3600)
    assert (holder_of(colony).kind, holder_of(colony).id) == ("colony", "01COLONY")
    assert colony_id_of(authority.pair.certificate) == "01COLONY"
    with pytest.raises(InvalidArgument, match="names neither"):
        holder_of(authority.pair.certificate)
    with pytest.raises(FailedPrecondition, match="authority"):
        colony_id_of(colony)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        holder_of(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_request_proves_the_key() -> None:
    """A request that is garbage, too long, changed, or for a key of another kind gets no certificate."""
    authority = Authority.create("01COLONY")
    good = request_for(new_key(), "web-1")
    edwards = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    p384 = edwards.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    bad = [
        b"",
        b"garbage",
        good[:-1],
        good[:-4] + bytes([good[-4] ^ 1]) + good[-3:],
        b"\x30" * (17 << 10),
        edwards.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(serialization.Encoding.DER),
        p384.public_bytes(serialization.Encoding.DER),
    ]
    for request in bad:
        with pytest.raises(InvalidArgument, match="certificate request"):
            authority.issue_agent(request, "web-1", lifetime_s=60)


def test_the_subject_of_a_request_counts_for_nothing() -> None:
    """Who asks for another agent's name in the request gets a certificate for the one that it was let in as."""
    authority = Authority.create("01COLONY")
    certificate = authority.issue_agent(request_for(new_key(), "web-2"), "web-1", lifetime_s=60)
    assert holder_of(certificate).id == "web-1"
    assert not verified(authority.pair.certificate, certificate, agent_dns("web-2"))


@pytest.mark.parametrize("name", ["", "a..b", "host:8081", "http://host", "a b", "*", "höst", "x" * 64, "a." * 130 + "b"])
def test_host_names(name: str) -> None:
    """What is neither a host name nor an address is refused rather than put into a certificate."""
    with pytest.raises(InvalidArgument, match="neither a host name nor an IP address"):
        Authority.create("01COLONY").issue_colony(new_key().public_key(), [name], lifetime_s=60)


def test_halves_that_do_not_belong_together() -> None:
    """An authority whose key is not its certificate's, or whose files are damaged, is not used; nor does its key show."""
    authority = Authority.create("01COLONY")
    pairs = [
        KeyPair(certificate=authority.pair.certificate, key=private_pem(new_key())),
        KeyPair(certificate=authority.pair.certificate, key=b"damaged"),
        KeyPair(certificate=b"damaged", key=authority.pair.key),
    ]
    for pair in pairs:
        with pytest.raises(FailedPrecondition):
            Authority(pair)
    assert "PRIVATE" not in repr(authority.pair)
    assert public_key_of(authority.pair.key) == x509.load_pem_x509_certificate(authority.pair.certificate).public_key()


def test_a_certificate_of_use() -> None:
    """A certificate is of use only with the key that it is for, and from the authority that was expected."""
    authority, other, key = Authority.create("01COLONY"), Authority.create("01COLONY"), new_key()
    certificate = authority.issue_agent(request_for(key, "web-1"), "web-1", lifetime_s=60)
    ca, good = authority.pair.certificate, KeyPair(certificate=certificate, key=private_pem(key))
    check_pair(good, ca)
    for pair, issuer in (
        (KeyPair(certificate=certificate, key=private_pem(new_key())), ca),
        (KeyPair(certificate=b"x", key=good.key), ca),
        (KeyPair(certificate=certificate, key=b"x"), ca),
        (good, other.pair.certificate),
        (good, certificate),
        (good, b"x"),
    ):
        with pytest.raises(InvalidArgument, match="of no use"):
            check_pair(pair, issuer)
