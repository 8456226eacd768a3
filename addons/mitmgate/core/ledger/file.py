"""What stands in recorder.yaml: where exchanges are written, in what form, how safely."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

import pydantic

from mitmgate.core.ledger.recording import Fsync
from mitmgate.core.ledger.sealing import Encrypt
from mitmgate.core.ledger.signature import Signer
from mitmgate.core.rules import Duration, Listed, Model, Reference, RuleFile, Size
from mitmgate.core.tokens.extract import CREDENTIAL_HEADERS


def _inside(directory: str) -> str:
    parts = PurePosixPath(directory).parts
    if not parts or directory.startswith(("/", "~")) or ".." in parts or "\\" in directory:
        raise ValueError("is a plain path below the gate's state directory, like recordings")
    return directory


def _header(name: object) -> object:
    if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError("is no header name (RFC 9110 5.1)")
    return name.lower()


def _parameter(name: object) -> object:
    if not isinstance(name, str) or not re.fullmatch(r"[^\s&;=#?%+]+", name):
        raise ValueError("is no name of a query parameter, written without % or +")
    return name.lower()


def _session_header(name: object) -> object:
    header = _header(name)
    if header in CREDENTIAL_HEADERS:
        raise ValueError("carries credentials, and these are in no file")
    return header


# What agents and SDKs send: anything of one's own, Codex (new and old), Claude Code, opencode,
# LiteLLM, Helicone, MCP.
SESSIONS = (
    "x-session-id",
    "session-id",
    "session_id",
    "x-claude-code-session-id",
    "x-opencode-session",
    "x-litellm-session-id",
    "helicone-session-id",
    "mcp-session-id",
)


class Rotate(Model):
    """A new file begins when the old one would exceed `size` bytes or is `age` seconds old."""

    size: Annotated[Size, pydantic.Field(gt=0)] = 256 << 20
    age: Annotated[Duration, pydantic.Field(gt=0)] = 86400.0


class Retain(Model):
    """What is older than `age` seconds goes, and the oldest while all take more than `size` bytes.

    Without either, everything is kept.
    """

    age: Annotated[Duration, pydantic.Field(gt=0)] | None = None
    size: Annotated[Size, pydantic.Field(gt=0)] | None = None


class Sign(Model):
    """An Ed25519 private key in PEM, for the ledger's checkpoints."""

    key: Reference

    @pydantic.field_validator("key")
    @classmethod
    def _is_a_key(cls, key: Reference) -> Reference:
        Signer.from_pem(key.resolve())
        return key

    def signer(self) -> Signer:
        """The key as it is now. Raises `ValueError`."""
        return Signer.from_pem(self.key.resolve())


class RecorderFile(RuleFile):
    """recorder.yaml.

    `directory` is below the gate's state directory. `prompts` says whether request text is kept as
    sent or as the model got it; `scrub` names headers (in lower case) to leave out beside those
    that carry credentials, `scrub_query` more query parameters. `sessions` names the headers in
    which callers say which session a request is of: the first one that a request has counts, and
    one that is scrubbed does not. `encrypt` says who can read what is recorded; without it, whoever
    gets the files. `fsync` is how soon recordings are forced to the disk: `interval`
    within a second; the journal always is before a request goes, but by `never`. What is not
    recorded is refused, unless `unsafe_required: false` says otherwise.
    """

    directory: Annotated[str, pydantic.AfterValidator(_inside)] = "recordings"
    rotate: Rotate = Rotate()
    retain: Retain = Retain()
    prompts: Literal["exact", "masked"] = "exact"
    required: bool = True
    unsafe_required: bool = True
    scrub: Listed[Annotated[str, pydantic.BeforeValidator(_header)]] = ()
    scrub_query: Listed[Annotated[str, pydantic.BeforeValidator(_parameter)]] = ()
    sessions: Listed[Annotated[str, pydantic.BeforeValidator(_session_header)]] = SESSIONS
    sign: Sign | None = None
    encrypt: Encrypt | None = None
    fsync: Fsync = "interval"

    @pydantic.field_validator("required")
    @classmethod
    def _is_required(cls, required: bool) -> bool:
        if not required:
            raise ValueError(
                "traffic that cannot be recorded is refused; to let it pass unrecorded"
                " write unsafe_required: false"
            )
        return required

    @property
    def refuses_unrecorded(self) -> bool:
        """False only where `unsafe_required: false` stands."""
        return self.unsafe_required
