"""Why a caller is not let in: one exception class for each thing that can be wrong with a token.

`code` is stable and goes into logs, metrics and the ledger; `description` is all that a client is
told; `diagnostics()` is for the operator. None of them ever has the token itself in it. `error`
and `status` are the client-side class of RFC 6750 section 3.1.
"""

from __future__ import annotations

from typing import ClassVar


def shown(value: object) -> str:
    """An unverified value, short and in printable ASCII, for an operator's sentence."""
    text = ascii(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class TokenError(Exception):
    """A token that is not accepted. `detail` tells the operator what was found and expected."""

    code: ClassVar[str] = "token_invalid"
    error: ClassVar[str | None] = "invalid_token"
    status: ClassVar[int] = 401
    description: ClassVar[str] = "The token is not accepted."

    def __init__(self, detail: str = "") -> None:
        self.detail = detail or self.description
        super().__init__(self.detail)

    def diagnostics(self) -> str:
        """One line for the operator's log."""
        return f"{self.code}: {self.detail}"


class TokenMissing(TokenError):
    code = "token_missing"
    error = None  # RFC 6750: no error code when no credentials were given
    description = "A bearer token is required."


class TokenConflict(TokenError):
    code = "token_conflict"
    error = "invalid_request"
    status = 400
    description = "The request carries more than one credential."


class TokenMalformed(TokenError):
    code = "token_malformed"
    description = "The token is not a well-formed JWT."


class TokenTooLarge(TokenError):
    code = "token_too_large"
    description = "The token is too large."


class TokenEncrypted(TokenError):
    code = "token_encrypted"
    description = "Encrypted tokens are not accepted."


class TypeRefused(TokenError):
    code = "type_refused"
    description = "This kind of token is not an access token."


class CriticalHeader(TokenError):
    code = "critical_header"
    description = "The token asks for an extension that is not supported."


class AlgorithmRefused(TokenError):
    code = "algorithm_refused"
    description = "The token's signature algorithm is not accepted."


class KeyUnknown(TokenError):
    code = "key_unknown"
    description = "The token is signed with an unknown key."


class KeysUnavailable(TokenError):
    """The gate has no keys of this issuer: its own trouble, not the caller's."""

    code = "keys_unavailable"
    error = None
    status = 503
    description = "The token cannot be verified right now."


class SignatureWrong(TokenError):
    code = "signature_wrong"
    description = "The token's signature is wrong."


class IssuerMissing(TokenError):
    code = "issuer_missing"
    description = "The token names no issuer (iss)."


class IssuerUnknown(TokenError):
    code = "issuer_unknown"
    description = "The token's issuer (iss) is not accepted here."


class AudienceMissing(TokenError):
    code = "audience_missing"
    description = "The token names no audience (aud)."


class AudienceWrong(TokenError):
    code = "audience_wrong"
    description = "The token is meant for another audience (aud)."


class SubjectMissing(TokenError):
    code = "subject_missing"
    description = "The token names no subject (sub)."


class ExpiryMissing(TokenError):
    code = "expiry_missing"
    description = "The token never expires (exp is missing)."


class TokenExpired(TokenError):
    code = "token_expired"
    description = "The token has expired."


class IssuedAtMissing(TokenError):
    code = "issued_at_missing"
    description = "The token does not say when it was issued (iat)."


class IssuedInFuture(TokenError):
    code = "issued_in_future"
    description = "The token was issued in the future (iat)."


class NotYetValid(TokenError):
    code = "not_yet_valid"
    description = "The token is not valid yet (nbf)."


class LifetimeTooLong(TokenError):
    code = "lifetime_too_long"
    description = "The token lives longer than is accepted here."


class ClaimMalformed(TokenError):
    code = "claim_malformed"
    description = "A claim of the token has the wrong type."


class ProofRequired(TokenError):
    """The token is bound to a key (RFC 7800 `cnf`); taken as a bearer token it would be weaker."""

    code = "proof_required"
    description = "The token is bound to a key and is not accepted as a bearer token."


class TokenRevoked(TokenError):
    code = "token_revoked"
    description = "The token has been revoked."


class RevocationsUnavailable(TokenError):
    """The list of revoked tokens cannot be read, so no token can be trusted."""

    code = "revocations_unavailable"
    error = None
    status = 503
    description = "The token cannot be verified right now."


class KeySetError(Exception):
    """A key set that cannot be had or used; the text is one line: where from, and why."""

    def __init__(self, source: object, reason: object) -> None:
        self.source = str(source)
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{self.source}: {self.reason}")
