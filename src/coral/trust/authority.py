"""The colony's own certificate authority: who is a colony, who is an agent, and for how long.

Everything is ECDSA P-256 with SHA-256, because the TLS library of gRPC (BoringSSL) takes no Ed25519 there. A certificate says
who its holder is in a URI of its subject alternative names (RFC 5280, section 4.2.1.6), as SPIFFE does it:
``coral://colony/ID`` or ``coral://agent/ID``, the id percent-encoded (RFC 3986). TLS compares DNS names only, so each has
a DNS name below ``coral.internal`` too, which says the same and which no other certificate of this authority has.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coral.model.errors import FailedPrecondition, InvalidArgument

COLONY_DNS = "colony.coral.internal"
"""The name that agents demand of their colony, whatever the host is called that they reach it by."""

CA_DAYS = 3650
_BACKDATED = timedelta(minutes=5)
"""Clocks differ: a certificate is good a little before it was made."""
_MAX_REQUEST_BYTES = 16 << 10

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""What ``cryptography`` raises at certificates and keys that are damaged, or unlike those that Coral issues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whom a certificate names.

    Attributes:
        kind: ``colony`` or ``agent``.
        id: Of the colony, or of the agent.
        serial: Of the certificate, as hexadecimal digits.
        expires_at_ns: When it ends, wall clock.
    """

    kind: str
    id: str
    serial: str
    expires_at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A private key and the certificate for it, both PEM. The key does not show itself.

    Attributes:
        certificate: The certificate.
        key: The private key (PKCS #8, not encrypted).
    """

    certificate: bytes
    key: bytes = field(repr=False)


class Authority:
    """Issues certificates for one colony."""

    def __init__(self, pair: KeyPair) -> None:
        """Takes over a certificate and its key.

        Raises:
            FailedPrecondition: They are no authority of a colony, or do not belong together.
        """
        self.pair = pair
        try:
            self._certificate = x509.load_pem_x509_certificate(pair.certificate)
            key = serialization.load_pem_private_key(pair.key, None)
        except UNREADABLE as error:
            raise FailedPrecondition(f"The certificate authority cannot be read: {error}.", hint=_RESTORE) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._certificate.public_key():
            raise FailedPrecondition("The key of the certificate authority is not that of its certificate.", hint=_RESTORE)
        self._key = key
        self.colony_id = colony_id_of(pair.certificate)

    @classmethod
    def create(cls, colony_id: str) -> Self:
        """A new authority, for a new colony."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Coral colony {colony_id}"[:64])])
        usage = _usage(certificates=True)
        certificate = (
            _builder(name, name, key.public_key(), lifetime_s=CA_DAYS * 86_400)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(_names([], uri=_uri("ca", colony_id)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(KeyPair(certificate=_pem(certificate), key=private_pem(key)))

    def issue_colony(self, public_key: ec.EllipticCurvePublicKey, names: Sequence[str], *, lifetime_s: float) -> bytes:
        """The colony's own certificate: towards users and agents as a server, towards agents as a client too.

        Args:
            public_key: The colony's.
            names: Host names and IP addresses by which users reach it.
            lifetime_s: For how long it is good.

        Raises:
            InvalidArgument: A name is neither a host name nor an address.
        """
        return self._issue(public_key, [COLONY_DNS, *names], uri=_uri("colony", self.colony_id), lifetime_s=lifetime_s)

    def issue_agent(self, request_der: bytes, agent_id: str, *, lifetime_s: float) -> bytes:
        """A certificate for an agent, PEM. Of the request only the public key counts; who it is for, the caller knows.

        Args:
            request_der: A PKCS #10 request (RFC 2986), signed with the key that it is for.
            agent_id: Whom it will name.
            lifetime_s: For how long it is good.

        Raises:
            InvalidArgument: The request cannot be read, is not signed with its key, or that is no P-256 key.
        """
        return self._issue(
            _requested_key(request_der), [agent_dns(agent_id)], uri=_uri("agent", agent_id), lifetime_s=lifetime_s
        )

    def _issue(self, public_key: ec.EllipticCurvePublicKey, names: Sequence[str], *, uri: str, lifetime_s: float) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(self._certificate.subject, subject, public_key, lifetime_s=lifetime_s)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(_names(names, uri=uri), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate)


_RESTORE = "Restore ca.pem and ca.key from a backup; a new authority would mean that every agent joins again."


def holder_of(certificate: bytes) -> Holder:
    """Whom a certificate names. That it was issued by the authority, TLS has verified, or is verified elsewhere.

    Args:
        certificate: PEM.

    Raises:
        InvalidArgument: It is none, or names nobody of Coral.
    """
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        uris = _uris(parsed)
    except UNREADABLE:
        raise InvalidArgument("The certificate cannot be read.", hint="Is it one that `coral colony init` made?") from None
    for kind in ("colony", "agent"):
        prefix = f"coral://{kind}/"
        if len(uris) == 1 and uris[0].startswith(prefix):
            try:
                identifier = unquote(uris[0].removeprefix(prefix), errors="strict")
            except UnicodeDecodeError:
                break
            return Holder(
                kind=kind,
                id=identifier,
                serial=f"{parsed.serial_number:x}",
                expires_at_ns=_ns(parsed.not_valid_after_utc),
            )
    raise InvalidArgument("The certificate names neither a colony nor an agent.", hint="Is it one that Coral issued?")


def check_pair(pair: KeyPair, ca: bytes) -> None:
    """Returns when a certificate was issued by an authority, for the key that it is to be used with.

    Args:
        pair: The certificate and the key.
        ca: The certificate of the authority, PEM.

    Raises:
        InvalidArgument: It was not, or one of them cannot be read.
    """
    try:
        certificate, authority = x509.load_pem_x509_certificate(pair.certificate), x509.load_pem_x509_certificate(ca)
        certificate.verify_directly_issued_by(authority)
        if certificate.public_key() != public_key_of(pair.key):
            raise ValueError("it is for another key")
    except (*UNREADABLE, InvalidSignature, FailedPrecondition) as error:
        raise InvalidArgument(
            f"The certificate is of no use: {error or 'it is not signed by the authority'}.", hint="Is it the right colony?"
        ) from None


def colony_id_of(ca: bytes) -> str:
    """The colony that an authority is of.

    Args:
        ca: Its certificate, PEM.

    Raises:
        FailedPrecondition: It is none of a colony.
    """
    try:
        certificate = x509.load_pem_x509_certificate(ca)
        uris = _uris(certificate)
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except UNREADABLE:
        uris, authority = [], False
    if not authority or len(uris) != 1 or not uris[0].startswith("coral://ca/"):
        raise FailedPrecondition("That is not the certificate of a colony's authority.", hint="It is the colony's ca.pem.")
    return unquote(uris[0].removeprefix("coral://ca/"))


def life_of(certificate: bytes) -> tuple[int, int]:
    """From when and until when a PEM certificate counts, in ns of the wall clock; the backdating is taken off."""
    parsed = x509.load_pem_x509_certificate(certificate)
    return _ns(parsed.not_valid_before_utc + _BACKDATED), _ns(parsed.not_valid_after_utc)


def host_names_of(certificate: bytes) -> list[str]:
    """The host names and addresses that a colony's certificate was made for."""
    parsed = x509.load_pem_x509_certificate(certificate)
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = [name for name in names.get_values_for_type(x509.DNSName) if name != COLONY_DNS]
    return [*dns, *(str(address) for address in names.get_values_for_type(x509.IPAddress))]


def canonical(name: str) -> str:
    """A host name or address as certificates have it."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.removesuffix(".")


def agent_dns(agent_id: str) -> str:
    """The DNS name that only that agent's certificate has; ids may hold what DNS names cannot."""
    return f"{hashlib.sha256(agent_id.encode()).hexdigest()[:32]}.agent.coral.internal"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for a certificate."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM (PKCS #8), not encrypted."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public_key_of(key_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public part of a private P-256 key.

    Raises:
        FailedPrecondition: It is no such key.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise FailedPrecondition(f"A private key cannot be read: {error}.", hint="Restore it from a backup.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FailedPrecondition("A private key is not for ECDSA.", hint="Restore it from a backup.")
    return key.public_key()


def request_for(key: ec.EllipticCurvePrivateKey, agent_id: str) -> bytes:
    """A PKCS #10 request for a certificate, DER: it proves that who asks has the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent_dns(agent_id))])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def requested_key_digest(request_der: bytes) -> bytes:
    """The SHA-256 of the public key that a request is for (its SubjectPublicKeyInfo): tells whether two are of one key.

    Raises:
        InvalidArgument: As ``Authority.issue_agent`` says.
    """
    key = _requested_key(request_der)
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).digest()


def _requested_key(request_der: bytes) -> ec.EllipticCurvePublicKey:
    hint = "An agent makes it when it joins."
    if len(request_der) > _MAX_REQUEST_BYTES:
        raise InvalidArgument("The certificate request is too long.", hint=hint)
    try:
        request = x509.load_der_x509_csr(request_der)
        key = request.public_key()
        signed = request.is_signature_valid
    except (*UNREADABLE, InvalidSignature) as error:
        raise InvalidArgument(f"The certificate request cannot be read: {error}.", hint=hint) from None
    if not signed:
        raise InvalidArgument("The certificate request is not signed with the key that it is for.", hint=hint)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument("The certificate request is not for a P-256 key.", hint=hint)
    return key


def _builder(
    issuer: x509.Name, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, lifetime_s: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(seconds=lifetime_s))
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(names: Sequence[str], *, uri: str) -> x509.SubjectAlternativeName:
    general: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    for name in dict.fromkeys(canonical(name) for name in names):
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            general.append(_dns(name))
    return x509.SubjectAlternativeName(general)


def _dns(name: str) -> x509.DNSName:
    labels = name.split(".")
    good = all(
        0 < len(label) <= 63 and all(character.isalnum() or character in "-_" for character in label) for label in labels
    )
    if not good or not name.isascii() or len(name) > 253:
        raise InvalidArgument(
            f"{name!r} is neither a host name nor an IP address.", hint="Give names without port, such as debug.example.com."
        )
    return x509.DNSName(name)


def _uri(kind: str, identifier: str) -> str:
    return f"coral://{kind}/{quote(identifier, safe='')}"


def _uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(names.get_values_for_type(x509.UniformResourceIdentifier))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _ns(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000_000
