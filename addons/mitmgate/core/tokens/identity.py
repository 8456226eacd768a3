"""identity.yaml as it works: a verifier and an authorizer, compiled and ready to be swapped in."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.rules.loader import Loaded, RuleError
from mitmgate.core.tokens.errors import KeySetError, RevocationsUnavailable
from mitmgate.core.tokens.file import IdentityFile, problems_of
from mitmgate.core.tokens.grants import Authorizer
from mitmgate.core.tokens.keys import keys_of
from mitmgate.core.tokens.revocation import Revocations
from mitmgate.core.tokens.verify import TrustedIssuer, Verifier

DEVELOPMENT = (".mitmgate", "dev-issuer")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the identity addon needs. `start` it before the first token; `digest` is the file's."""

    verifier: Verifier
    authorizer: Authorizer
    issuers: tuple[TrustedIssuer, ...]
    digest: str

    async def start(self) -> None:
        """Fetch every remote key set once. Raises `KeySetError` that names all that failed."""
        starts = (issuer.keys.start() for issuer in self.issuers)
        failed = []
        for issuer, result in zip(
            self.issuers, await asyncio.gather(*starts, return_exceptions=True), strict=True
        ):
            if isinstance(result, KeySetError):
                failed.append(f"{issuer.rules.id}: {result}")
            elif result is not None:
                raise result
        if failed:
            raise KeySetError("key sets", "; ".join(failed))

    def problems(self) -> list[str]:
        """Key sets whose newest look failed, for the log and for readiness; the old ones serve."""
        pairs = ((issuer.rules.id, issuer.keys.problem) for issuer in self.issuers)
        return [f"{name}: {problem}" for name, problem in pairs if problem]

    def ignored_keys(self) -> list[str]:
        """Keys that were left out of their sets, and why. Call it after `start`."""
        return [note for issuer in self.issuers for note in issuer.keys.current().ignored]


def compile(  # the builtin's name is the word every core part uses for this
    loaded: Loaded[IdentityFile], operations: Collection[str] | None = None
) -> Identity:
    """Rules to an `Identity`, reading key files but fetching nothing. Raises `RuleError`.

    `operations` are the names that grants may use; None leaves them unchecked.
    """
    problems = list(problems_of(loaded, operations))
    issuers = tuple(TrustedIssuer(rules, keys_of(rules)) for rules in loaded.file.issuers)
    for i, issuer in enumerate(issuers):
        path = issuer.rules.keys.jwks_file
        if path is None:
            continue
        try:
            issuer.keys.current()
        except KeySetError as e:
            message = f"{path} {e.reason}{_hint(path)}"
            problems.append(loaded.problem(("issuers", i, "keys", "jwks_file"), message))
    revocations = Revocations(loaded.file.revoked.file) if loaded.file.revoked else None
    if revocations:
        try:
            revocations.look()
        except RevocationsUnavailable as e:
            problems.append(loaded.problem(("revoked", "file"), e.detail))
    if problems:
        raise RuleError(problems)
    return Identity(
        verifier=Verifier(issuers, revocations=revocations),
        authorizer=Authorizer(loaded.file.grants),
        issuers=issuers,
        digest=loaded.digest,
    )


def _hint(path: Path) -> str:
    if path.resolve().parent.parts[-2:] != DEVELOPMENT:
        return ""
    return " (`mitmgate token` makes one for development)"
