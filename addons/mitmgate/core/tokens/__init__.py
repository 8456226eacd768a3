"""Who is calling: issuers, their key sets, tokens to principals, and what principals may do."""

from mitmgate.core.tokens.errors import (
    KeySetError,
    NonceWanted,
    ProofWrong,
    TokenConflict,
    TokenError,
    TokenMissing,
    TokenRevoked,
    Unavailable,
)
from mitmgate.core.tokens.extract import CREDENTIAL_HEADERS, presented, without_credentials
from mitmgate.core.tokens.file import ALGORITHMS, Grant, IdentityFile, Issuer
from mitmgate.core.tokens.grants import Authorizer, NotAllowed, Wanted
from mitmgate.core.tokens.identity import Identity, compile
from mitmgate.core.tokens.keys import Keys
from mitmgate.core.tokens.limits import Limiter, LimitReached
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.verify import Verifier

__all__ = [
    "ALGORITHMS",
    "CREDENTIAL_HEADERS",
    "Authorizer",
    "Grant",
    "Identity",
    "IdentityFile",
    "Issuer",
    "KeySetError",
    "Keys",
    "LimitReached",
    "Limiter",
    "NonceWanted",
    "NotAllowed",
    "Presented",
    "ProofWrong",
    "TokenConflict",
    "TokenError",
    "TokenMissing",
    "TokenRevoked",
    "Unavailable",
    "Verifier",
    "Wanted",
    "compile",
    "presented",
    "without_credentials",
]
