"""Records that only their recipients can read, and what stands about them in the clear.

A sealed flow is a frame like any other, so that everything that goes by frames, offsets and hashes
works on it without a key: a dictionary of `age` (the frame of the flow, encrypted) and `version`,
a sentence that mitmproxy quotes when it refuses to read the file. The gate has recipients alone and
cannot read what it has written; `core.ledger.opening` does, for whoever has an identity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from mitmgate.core.ledger import age
from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.rules import Listed, Model, Reference

FORMAT = "age"  # what the ledger says of a sealed record
# What may quote a prompt: addresses have keys of the caller's JSON, reasons what a person wrote.
_WORDS = {"findings": "address", "approvals": "reason"}
VEILED = tuple(_WORDS)  # fields that are whole in the flow alone

_SAYS = b"encrypted by mitmgate: mitmgate export --identity FILE -o OUT.mitm"
_HEAD = b"7:version;%d:%d:%s;]3:age;" % (len(_SAYS) + 4, len(_SAYS), _SAYS)
_FRAME = re.compile(rb"[0-9]+:" + re.escape(_HEAD) + rb"[0-9]+:")


def sealed_part(frame: bytes) -> bytes | None:
    """The encrypted part of a sealed flow; None for a flow that is not sealed."""
    head = _FRAME.match(frame)
    return frame[head.end() : -2] if head else None


class Sealing:
    """Encrypts to `recipients` (one a line) what is written to `directory`.

    Raises `ValueError` for what is no recipient.
    """

    def __init__(self, recipients: str, directory: Path) -> None:
        self._recipients = age.recipients(recipients)
        self._directory = directory

    def record(self, flow: bytes, fields: Mapping[str, Any]) -> tuple[bytes, Mapping[str, Any]]:
        """A flow and its ledger fields as they may be written. What is sealed stays as it is.

        Raises `RecordingError` if it cannot be encrypted.
        """
        return self._sealed(flow), {**fields, **_veiled(fields), "encrypted": FORMAT}

    def _sealed(self, flow: bytes) -> bytes:
        if sealed_part(flow) is not None:
            return flow
        try:
            data = age.encrypt(flow, self._recipients)
        except ValueError as e:
            raise RecordingError(self._directory, str(e)) from e
        head = _HEAD + b"%d:" % len(data)
        size = len(head) + len(data) + 1
        return b"".join((b"%d:" % size, head, data, b",}"))  # one copy: it may be large


def _veiled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [{**each, word: ""} for each in fields[name]]
        for name, word in _WORDS.items()
        if name in fields
    }


def _checked(given: Reference) -> Reference:
    age.recipients(given.resolve())
    return given


class Encrypt(Model):
    """Who can read what is recorded: recipients of age, each perhaps a file with one a line.

    They are taken as they are when the rules load.
    """

    recipients: Annotated[
        Listed[Annotated[Reference, pydantic.AfterValidator(_checked)]],
        pydantic.Field(min_length=1),
    ]
    _text: str = pydantic.PrivateAttr("")

    def model_post_init(self, context: object, /) -> None:
        self._text = "\n".join(each.resolve() for each in self.recipients)

    def sealing(self, directory: Path) -> Sealing:
        """For what is written to `directory`."""
        return Sealing(self._text, directory)
