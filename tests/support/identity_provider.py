"""An identity provider of a test's own: real keys, and a real HTTP server that gives their public halves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "coral"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass
class IdentityProvider:
    """One provider.

    Attributes:
        url: Its address, which is its issuer.
        keys: Its private keys, by name.
        extra_keys: Further entries of its key set, as they are.
        requests: The paths that were asked for.
        answer: What it answers with instead: status and body; None for what is right.
        pause_s: For how long it waits before it answers.
    """

    url: str = ""
    keys: dict[str, Key] = field(default_factory=lambda: {"k1": rsa.generate_private_key(65537, 2048)})
    extra_keys: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answer: tuple[int, bytes] | None = None
    pause_s: float = 0.0

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a token that counts; a value of None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": AUDIENCE, "sub": "u-1", "iat": now, "exp": now + 600, "groups": ["sre"], **changed,
        }  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, *, algorithm: str = "RS256", key: str = "k1", header: dict[str, Any] | None = None, **changed: Any
    ) -> str:
        """A token that it issues."""
        return jwt.encode(self.claims(**changed), self.keys[key], algorithm, headers={"kid": key, **(header or {})})

    def tampered(self, **changed: Any) -> str:
        """One whose claims were changed after it was signed."""
        header, _, signature = self.token().split(".")
        return f"{header}.{_base64(json.dumps(self.claims(**changed)).encode())}.{signature}"

    def headed(self, **header: Any) -> str:
        """One with further fields in its header, and no signature to speak of."""
        return encoded({"alg": "RS256", "kid": "k1", **header}, self.claims()) + ".AAAA"

    def unsigned(self) -> str:
        """One with ``alg`` none."""
        return encoded({"alg": "none", "kid": "k1", "typ": "JWT"}, self.claims()) + "."

    def confused(self) -> str:
        """One whose signature is an HMAC with the public key, as if that were a secret (RFC 8725, section 2.1)."""
        public = (
            self.keys["k1"]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        text = encoded({"alg": "HS256", "kid": "k1", "typ": "JWT"}, self.claims())
        return text + "." + _base64(hmac.new(public, text.encode(), hashlib.sha256).digest())

    def key_set(self) -> dict[str, Any]:
        """Its public keys, as a JSON Web Key Set."""
        return {"keys": [*(_public(name, key) for name, key in self.keys.items()), *self.extra_keys]}

    def respond(self, path: str) -> tuple[int, bytes]:
        """What it gives for a path."""
        self.requests.append(path)
        time.sleep(self.pause_s)
        if self.answer is not None:
            return self.answer
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        return (200, json.dumps(self.key_set()).encode()) if path == "/keys" else (404, b"")


def encoded(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """The signing input of a token."""
    return ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))


@contextmanager
def identity_provider(certificate: Path | None = None) -> Iterator[IdentityProvider]:
    """A provider that answers until the context ends.

    Args:
        certificate: A file with its certificate and key, for https; None for http.
    """
    provider = IdentityProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = provider.respond(self.path)
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", f"{provider.url}/keys")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Nothing to say of a caller that went away, or did not like the certificate."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    provider.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def _public(name: str, key: Key) -> dict[str, Any]:
    algorithms: dict[type, Any] = {
        rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePublicKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PublicKey: jwt.algorithms.OKPAlgorithm,
    }
    public = key.public_key()
    algorithm = next(found for kind, found in algorithms.items() if isinstance(public, kind))
    return {**json.loads(algorithm.to_jwk(public)), "kid": name, "use": "sig"}


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
