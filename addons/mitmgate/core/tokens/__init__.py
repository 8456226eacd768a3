"""Who is calling: issuers, their key sets, tokens to principals, and what principals may do."""

from mitmgate.core.tokens.errors import KeySetError, TokenConflict, TokenError, TokenMissing
from mitmgate.core.tokens.extract import CREDENTIAL_HEADERS, bearer
from mitmgate.core.tokens.file import Grant, IdentityFile, Issuer
from mitmgate.core.tokens.grants import Authorizer, NotAllowed
from mitmgate.core.tokens.identity import Identity, compile
from mitmgate.core.tokens.verify import Verifier

__all__ = [
    "CREDENTIAL_HEADERS",
    "Authorizer",
    "Grant",
    "Identity",
    "IdentityFile",
    "Issuer",
    "KeySetError",
    "NotAllowed",
    "TokenConflict",
    "TokenError",
    "TokenMissing",
    "Verifier",
    "bearer",
    "compile",
]
