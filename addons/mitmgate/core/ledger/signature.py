"""Ed25519 (RFC 8032) signatures for checkpoints: the gate's key signs, its public half verifies."""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_DOMAIN = b"mitmgate ledger 1\n"  # the key's signatures on anything else mean nothing here


class Signer:
    """An Ed25519 private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = _key_id(key.public_key())

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self._key.public_key())

    @classmethod
    def from_pem(cls, pem: str | bytes) -> Signer:
        """From PKCS 8 without a passphrase. Raises `ValueError`, which never shows the key."""
        try:
            key = serialization.load_pem_private_key(_bytes(pem), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("not a private key in PEM without a passphrase") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key (openssl genpkey -algorithm ed25519)")
        return cls(key)

    def sign(self, message: bytes) -> str:
        """The signature, in base64."""
        return base64.b64encode(self._key.sign(_DOMAIN + message)).decode()


class Verifier:
    """An Ed25519 public key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.key_id = _key_id(key)

    @classmethod
    def from_pem(cls, pem: str | bytes) -> Verifier:
        """From SubjectPublicKeyInfo. Raises `ValueError`."""
        try:
            key = serialization.load_pem_public_key(_bytes(pem))
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("not a public key in PEM") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 public key (openssl pkey -pubout)")
        return cls(key)

    def verifies(self, signature: object, message: bytes) -> bool:
        """True if `signature` is this key's for `message`."""
        try:
            self._key.verify(base64.b64decode(str(signature), validate=True), _DOMAIN + message)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def _key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _bytes(pem: str | bytes) -> bytes:
    return pem.encode() if isinstance(pem, str) else pem
