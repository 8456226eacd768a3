"""identity.yaml as it works: a verifier and an authorizer, compiled and ready to be swapped in.

What has been learned meanwhile (keys, answers of issuers, proofs that were used) outlives an edit
of the file that does not concern it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.rules.loader import Loaded, RuleError
from mitmgate.core.tokens.errors import KeySetError, RevocationsUnavailable
from mitmgate.core.tokens.file import IdentityFile, Issuer, problems_of
from mitmgate.core.tokens.grants import Authorizer
from mitmgate.core.tokens.introspection import Introspector
from mitmgate.core.tokens.keys import keys_of
from mitmgate.core.tokens.possession import Possession
from mitmgate.core.tokens.revocation import Revocations
from mitmgate.core.tokens.verify import TrustedIssuer, Verifier

DEVELOPMENT = (".mitmgate", "dev-issuer")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the identity addon needs. `start` it before the first token, then `keep_fresh`.

    `digest` is that of the file, `rules` what it says.
    """

    verifier: Verifier
    authorizer: Authorizer
    issuers: tuple[TrustedIssuer, ...]
    possession: Possession
    rules: IdentityFile
    digest: str

    async def start(self) -> list[str]:
        """Fetch every remote key set once, within `keys.DEADLINE`, and return `problems`.

        An issuer whose keys cannot be had keeps nobody else's callers out: its own tokens are
        answered with 503 until `keep_fresh` has them.
        """
        await asyncio.gather(*(issuer.keys.start() for issuer in self.issuers))
        return self.problems()

    async def keep_fresh(self) -> None:
        """Renew the keys of every issuer until cancelled."""
        async with asyncio.TaskGroup() as group:
            for issuer in self.issuers:
                group.create_task(issuer.keys.keep_fresh())

    def problems(self) -> list[str]:
        """Key sets whose newest look failed, for the log and for readiness; the old ones serve."""
        pairs = ((issuer.rules.id, issuer.keys.problem) for issuer in self.issuers)
        return [f"{name}: {problem}" for name, problem in pairs if problem]

    def ignored_keys(self) -> list[str]:
        """Keys that were left out of their sets, and why. Call it after `start`."""
        return [note for issuer in self.issuers for note in _ignored(issuer)]


def compile(  # the builtin's name is the word every core part uses for this
    loaded: Loaded[IdentityFile],
    operations: Collection[str] | None = None,
    previous: Identity | None = None,
) -> Identity:
    """Rules to an `Identity`, reading key files but fetching nothing. Raises `RuleError`.

    `operations` are the names that grants may use; None leaves them unchecked. From `previous`
    comes what its rules and these have in common: key sets, answers about tokens, used proofs.
    """
    problems = list(problems_of(loaded, operations))
    old = {issuer.rules.id: issuer for issuer in previous.issuers} if previous else {}
    issuers = tuple(_trusted(rules, old.get(rules.id)) for rules in loaded.file.issuers)
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
    if previous and previous.rules.dpop == loaded.file.dpop:
        possession = previous.possession
    else:
        possession = Possession(loaded.file.dpop)
    return Identity(
        verifier=Verifier(issuers, possession=possession, revocations=revocations),
        authorizer=Authorizer(loaded.file.grants),
        issuers=issuers,
        possession=possession,
        rules=loaded.file,
        digest=loaded.digest,
    )


def _trusted(rules: Issuer, old: TrustedIssuer | None) -> TrustedIssuer:
    kept = old and _finding_keys(old.rules) == _finding_keys(rules)
    keys = old.keys if old and kept else keys_of(rules)
    introspector = old.introspector if old and _asking(old.rules) == _asking(rules) else None
    if rules.introspection and introspector is None:
        introspector = Introspector(rules.introspection, issuer=rules.id, authorities=rules.ca_file)
    return TrustedIssuer(rules, keys, introspector)


def _finding_keys(rules: Issuer) -> object:
    return rules.issuer, rules.trust_domain, rules.keys, rules.algorithms, rules.ca_file


def _asking(rules: Issuer) -> object:
    return rules.introspection and (rules.introspection, rules.ca_file)


def _ignored(issuer: TrustedIssuer) -> tuple[str, ...]:
    try:
        return issuer.keys.current().ignored
    except KeySetError:
        return ()


def _hint(path: Path) -> str:
    if path.resolve().parent.parts[-2:] != DEVELOPMENT:
        return ""
    return " (`mitmgate token` makes one for development)"
