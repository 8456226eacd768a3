"""When two sign-ins are one person: nobody approves their own request through a second account.

Tokens are compared by the words of a few claims (`same_person` in approval.yaml): a single word in
common is enough, whichever of the claims it stands in. To take two people for one costs a second
approver; the other mistake would let somebody approve what they asked for.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from unicodedata import normalize

from mitmgate.core import claim
from mitmgate.core.principal import Principal

OPERATING_SYSTEM = "os"  # the issuer of whoever runs a command, or has mitmproxy's interface
SUBJECT = ("sub",)


def account() -> Principal:
    """Whoever runs this process, by the system's word: what the environment says (LOGNAME) is
    theirs to choose. An account without a name is its number."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return Principal(issuer=OPERATING_SYSTEM, subject=name)


def recognised(principal: Principal, names: Iterable[str] = SUBJECT) -> tuple[str, ...]:
    """The words of the claims `names`. `sub` is the subject, too, whatever claim that is from."""
    found = []
    for name in names:
        if name == "sub":
            found.append(principal.subject)
        found += claim.words(claim.find(principal.claims, name))
    return tuple(dict.fromkeys(word for word in found if word.strip()))


def are_one(these: Iterable[str], those: Iterable[str]) -> bool:
    """Whether the two have a word in common; case does not count, as in addresses of mail, nor in
    which of its ways Unicode writes a letter."""
    return not _folded(these).isdisjoint(_folded(those))


def of_the_system(principal: Principal) -> bool:
    """Whether it is a user of the operating system, not a token whose issuer is called so."""
    return principal.issuer == OPERATING_SYSTEM and not principal.claims


def _folded(words: Iterable[str]) -> set[str]:
    return {normalize("NFKC", normalize("NFKC", word).strip().casefold()) for word in words}
