"""pyrage, if it is installed: encryption to recipients as https://age-encryption.org/v1 has it.

Only those who encrypt recordings need it, so it is an extra of the package. What is said here of a
recipient or an identity never quotes it: somebody may have put a secret key in the wrong place.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

MISSING = "encrypted recordings need pyrage, which is not installed: pip install pyrage"
PIECE = 1 << 20  # bytes that are encrypted in one go, in which no other thread runs

_SECRET = "AGE-SECRET-KEY-"  # noqa: S105  (what a secret key begins with)
_ARMOUR = b"-----BEGIN "
_PROTECTED = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE")


class NotForUs(ValueError):
    """None of the identities is one of the recipients."""


def library() -> ModuleType:
    """Raises `ValueError` where pyrage is not installed."""
    try:
        import pyrage
    except ImportError:
        raise ValueError(MISSING) from None
    module: ModuleType = pyrage
    return module


def recipients(text: str) -> list[Any]:
    """The recipients in `text`, one a line, as `age -R` takes them. Raises `ValueError`."""
    pyrage, found = library(), []
    for number, line in _lines(text):
        which = f"line {number} " if "\n" in text else ""
        if line.startswith(_SECRET):
            raise ValueError(
                f"{which}is a secret key, which belongs on no gate;"
                " `age-keygen -y` prints its recipient"
            )
        kind = pyrage.ssh if line.startswith("ssh-") else pyrage.x25519
        try:
            found.append(kind.Recipient.from_str(line))
        except pyrage.RecipientError:
            raise ValueError(
                f"{which}is no recipient, such as age1..., ssh-ed25519 ... or ssh-rsa ...;"
                " those of plugins are not supported"
            ) from None
    if not found:
        raise ValueError("names no recipient")
    return found


def identities(data: bytes, name: str) -> list[Any]:
    """The secret keys in a file as `age-keygen` or `ssh-keygen` writes it, without a passphrase.

    `name` is the file's, for the `ValueError`.
    """
    pyrage = library()
    if data.startswith(_PROTECTED):
        raise ValueError(
            f"{name} is protected with a passphrase, and is not asked for it:"
            f" open it for this, as in --identity <(age -d {name})"
        )
    if data.startswith(_ARMOUR):
        try:
            return [pyrage.ssh.Identity.from_buffer(data)]
        except pyrage.IdentityError:
            raise ValueError(
                f"{name} is no SSH key of type ed25519 or RSA without a passphrase"
            ) from None
    found = []
    for number, line in _lines(data.decode("utf-8", "replace")):
        try:
            found.append(pyrage.x25519.Identity.from_str(line))
        except pyrage.IdentityError:
            raise ValueError(
                f"{name}:{number}: is no secret key as age-keygen writes it ({_SECRET}1...);"
                " those of plugins are not supported"
            ) from None
    if not found:
        raise ValueError(f"{name} has no secret key in it")
    return found


def encrypt(data: bytes, to: Sequence[Any]) -> bytes:
    """`data` so that each of `to` can read it. Raises `ValueError`."""
    pyrage = library()
    try:
        if len(data) <= PIECE:
            sealed: bytes = pyrage.encrypt(data, to)
            return sealed
        out = io.BytesIO()
        pyrage.encrypt_io(_Pieces(data), out, to)
        return out.getvalue()
    except BaseException as e:  # a panic of Rust is no Exception, and nothing may pass for it
        raise ValueError(f"cannot be encrypted: {e}") from e


def decrypt(data: bytes, keys: Iterable[Any]) -> bytes:
    """What `encrypt` was given. Raises `NotForUs`, and `ValueError` for what is damaged."""
    pyrage = library()
    try:
        opened: bytes = pyrage.decrypt(data, list(keys))
    except pyrage.DecryptError as e:
        if "No matching keys" in str(e):
            raise NotForUs("none of these identities is one of its recipients") from None
        raise ValueError(f"cannot be decrypted: {e}") from None
    return opened


class _Pieces:
    """A reader in Python, at which other threads get their turn."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if (line := line.strip()) and not line.startswith("#"):
            yield number, line
