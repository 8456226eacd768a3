"""Check digits and registries: which of the texts a pattern finds are really what they look like.

A validator gets the value found and says how many of its characters, from the front, are valid: 0
refuses it, less than all shortens it (a card number followed by another number). It sees nothing
but the value, so it says the same on a stream. The rules of each format are kept by python-stdnum,
phonenumbers and the standard library.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Callable

import phonenumbers
import stdnum.iban
import stdnum.luhn
import stdnum.us.ssn

from mitmgate.core.masking.identifiers import IDENTIFIERS

Validator = Callable[[str], int]
_MIN_BITS = 3.0  # a character; English words have about 2.5, base64 of 20 characters about 4
_FILE_SUFFIXES = frozenset("png jpg jpeg gif svg webp avif pdf js css tgz zip utf".split())
_WITH_ZERO = ("GB", "DE", "FR")  # regions
_PASSWORD_SIGNS = frozenset("!@#%^*?~")
_OBJECT_IDENTIFIERS = ("1.2.", "1.3.", "2.5.")
_UK_PREFIXES_NEVER_USED = {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def _shortened(valid: Callable[[str], bool], value: str, separators: str, least: int) -> int:
    """The longest beginning of `value` that is valid and ends before a separator."""
    end = len(value)
    while end >= least:
        if valid(value[:end]):
            return end
        end = max(value.rfind(separator, 0, end) for separator in separators)
    return 0


def luhn(value: str) -> int:
    """A payment card's check digit (ISO/IEC 7812-1); 12 to 19 digits, not all the same."""

    def valid(text: str) -> bool:
        digits = "".join(filter(str.isdigit, text))
        return len(set(digits)) > 1 and 12 <= len(digits) <= 19 and stdnum.luhn.is_valid(digits)

    return _shortened(valid, value, " -._/+", 12)


def iban(value: str) -> int:
    """Length, country and check digits of an IBAN (ISO 13616)."""
    return _shortened(lambda text: bool(stdnum.iban.is_valid(text)), value, " -", 15)


def phone(value: str) -> int:
    """A number that a national numbering plan can have assigned.

    Without + it is one of the UK, Germany or France (with a 0), of Brazil or of the US.
    """
    if value[-2] == ".":  # the fraction of a number
        return 0
    return _shortened(_is_phone, value, " -./()", 7)


def _is_phone(value: str) -> bool:
    first = value.lstrip("(")[0]
    if first == "+":
        return _assigned(value, None)
    if first == "0":
        return any(_assigned(value, region) for region in _WITH_ZERO)
    return _assigned(value, "BR" if value[0] == "(" and value[3] == ")" else "US")


def _assigned(value: str, region: str | None) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(value, region)))
    except phonenumbers.NumberParseException:
        return False


def ssn(value: str) -> int:
    """A US social security number in a range that is, or was, issued."""
    return len(value) if stdnum.us.ssn.is_valid(value) else 0


def nino(value: str) -> int:
    """A UK national insurance number whose prefix is in use (HMRC NIM39110)."""
    return 0 if value[:2].upper() in _UK_PREFIXES_NEVER_USED else len(value)


def ipv4(value: str) -> int:
    """A host's address: not loopback, multicast, a mask, or a network (or version) ending in 0.

    Four single digits (`4.2.1.3`) are a section or a version far more often than an address, and
    what starts like an object identifier of X.500 or the internet is one.
    """
    if len(value) == len("4.2.1.3") or value.startswith(_OBJECT_IDENTIFIERS):
        return 0
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        return 0
    special = address.is_loopback or address.is_multicast or address.is_reserved
    return 0 if special or address.packed[3] == 0 or address.packed[0] == 0 else len(value)


def ipv6(value: str) -> int:
    """A host's address: not `::`, `::1` or multicast.

    Nor what could as well be a C++ name (`abc::def`) or a list (`1:2:3:4:5:6:7:8`).
    """
    try:
        address = ipaddress.IPv6Address(value)
    except ValueError:
        return 0
    groups = [group for group in value.split(":") if group]
    named = len(groups) < 3 and (len(groups[0]) < 4 if groups else True)
    listed = max(map(len, groups), default=0) == 1 and "::" not in value
    digits = any(char.isdigit() for char in value)
    special = address.is_loopback or address.is_multicast or address.is_unspecified
    return len(value) if digits and not (named or listed or special) else 0


def mac(value: str) -> int:
    """A device's address: not all zeros, not the broadcast address."""
    return 0 if set(value.lower()) - set(":-") in ({"0"}, {"f"}) else len(value)


def mailbox(value: str) -> int:
    """A person's address rather than a checkout URL (`git@host`) or a file (`logo@2x.png`)."""
    local, _, domain = value.lower().partition("@")
    suffix = domain.rpartition(".")[2]
    return 0 if local == "git" or suffix in _FILE_SUFFIXES else len(value)


def document(value: str) -> int:
    """A passport's or licence's number rather than a word or a year: five digits, or more signs."""
    digits = sum(map(str.isdigit, value))
    return len(value) if digits >= 5 or (digits >= 3 and len(value) >= 8) else 0


def entropy(value: str) -> int:
    """Too irregular for words: letters and digits, and at least 3 bits a character (Shannon)."""
    counts = Counter(value).values()
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
    return len(value) if _mixed(value) and bits >= _MIN_BITS else 0


def password(value: str) -> int:
    """Not a word or a variable's name: letters and digits, or letters and a sign like ! or @."""
    signs = any(char in _PASSWORD_SIGNS for char in value)
    return len(value) if _mixed(value) or (signs and any(map(str.isalpha, value))) else 0


def _mixed(value: str) -> bool:
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value))


VALIDATORS: dict[str, Validator] = {
    **IDENTIFIERS,
    "document": document,
    "entropy": entropy,
    "iban": iban,
    "ipv4": ipv4,
    "ipv6": ipv6,
    "luhn": luhn,
    "mac": mac,
    "mailbox": mailbox,
    "nino": nino,
    "password": password,
    "phone": phone,
    "ssn": ssn,
}
