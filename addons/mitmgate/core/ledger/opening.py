"""Read records again that were encrypted, with the identity of one of their recipients.

No secret key is in any text, error or form of these objects.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Self

from mitmgate.core.ledger import age
from mitmgate.core.ledger.entry import Entry
from mitmgate.core.ledger.framing import is_frame
from mitmgate.core.ledger.sealing import sealed_part
from mitmgate.core.ledger.search import BadRecord, flow_bytes


class IdentityNeeded(ValueError):
    """Something is encrypted, and nobody has given an identity."""


class Identities:
    """The secret keys in a file, which is looked at when there is something to open."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises `OSError`."""
        return cls(path.read_bytes(), str(path))

    def __reduce__(self) -> tuple[Any, ...]:  # for other processes; keys of pyrage cannot go there
        return Identities, (self._data, self._name)

    @cached_property
    def keys(self) -> list[Any]:
        """Raises `ValueError` for what is no file of secret keys, or one with a passphrase."""
        return age.identities(self._data, self._name)


def opened(frame: bytes, identities: Identities | None, what: str) -> bytes:
    """The flow in a frame, decrypted where it has to be; `what` names it in errors.

    Raises `BadRecord` for what cannot be decrypted, or not with these; `IdentityNeeded`, and
    `ValueError` for identities that are none.
    """
    part = sealed_part(frame)
    if part is None:
        return frame
    if identities is None:
        raise IdentityNeeded(
            f"{what} is encrypted: give the identity of one of its recipients"
            " in --identity FILE, or in $MITMGATE_IDENTITY"
        )
    keys = identities.keys
    try:
        flow = age.decrypt(part, keys)
    except ValueError as e:
        raise BadRecord(f"{what}: {e}") from None
    if not is_frame(flow):
        raise BadRecord(f"{what}: what is encrypted there is no flow")
    return flow


def opened_flow(entry: Entry, identities: Identities | None) -> bytes:
    """The flow of `entry` as it was before it was encrypted, if it was. Raises as `opened`."""
    what = f"{entry.flows}: the flow of {entry['exchange']} (byte {entry.fields['offset']})"
    return opened(flow_bytes(entry), identities, what)
