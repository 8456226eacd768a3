from __future__ import annotations

import pytest

from mitmgate.core.masking.folding import fold
from mitmgate.core.masking.replacement import KeepLast, Pseudonym, replacer
from mitmgate.core.masking.validators import VALIDATORS


@pytest.mark.parametrize(
    ("validator", "value", "accepted"),
    [
        ("luhn", "4111 1111 1111 1111", 19),
        ("luhn", "4111 1111 1111 1111 123", 19),
        ("luhn", "4111 1111 1111 1112", 0),
        ("luhn", "0000000000000000", 0),
        ("luhn", "79927398713", 0),  # right, but too short for a card
        ("iban", "GB82 WEST 1234 5698 7654 32 AND", 27),
        ("iban", "GB82WEST12345698765432", 22),
        ("iban", "GB82WEST12345698765433", 0),
        ("phone", "+44 20 7946 0958 2024", 16),
        ("phone", "+1 415 555 2671", 15),
        ("phone", "(212) 555-2368", 14),
        ("phone", "07911 123456", 12),
        ("phone", "123-456-7890", 0),
        ("phone", "+999 1234567", 0),
        ("ssn", "536-90-4399", 11),
        ("ssn", "666-90-4399", 0),
        ("nino", "AB123456C", 9),
        ("nino", "bg123456C", 0),
        ("luhn", "4111.1111.1111.1111", 19),
        ("phone", "0171 1234567", 12),
        ("phone", "01 42 68 53 00", 14),
        ("phone", "(11) 98765-4321", 15),
        ("phone", "+35236450.6", 0),
        ("mac", "00:1A:2b:3c:4D:5e", 17),
        ("mac", "00-00-00-00-00-00", 0),
        ("mac", "FF:ff:FF:ff:FF:ff", 0),
        ("document", "X12345", 6),
        ("document", "AB12CD3E", 8),
        ("document", "2024", 0),
        ("document", "HOLDERS1", 0),
        ("br-cpf", "390.533.447-05", 14),
        ("br-cpf", "111.111.111-11", 0),
        ("es-dni", "54362315K", 9),
        ("es-dni", "X-2482300-W", 11),
        ("es-dni", "54362315Z", 0),
        ("ipv4", "2.5.4.15", 0),
        ("ipv6", "1:2:3:4:5:6:7:8", 0),
        ("ipv6", "ff02::1:2:3", 0),
        ("ipv6", "0::0:0:0", 0),
        ("ipv4", "10.1.2.3", 8),
        ("ipv4", "127.0.0.1", 0),
        ("ipv4", "224.0.0.11", 0),
        ("ipv4", "0.1.2.33", 0),
        ("ipv4", "10.1.2.0", 0),
        ("ipv4", "4.2.1.3", 0),
        ("ipv4", "256.1.1.1", 0),
        ("ipv6", "fe80::1", 7),
        ("ipv6", "a1::b", 0),
        ("ipv6", "cafe::babe", 0),
        ("ipv6", "::", 0),
        ("ipv6", "::1", 0),
        ("ipv6", "12:34:56", 0),
        ("mailbox", "a@b.org", 7),
        ("mailbox", "ks_in@devanagari.utf", 0),
        ("mailbox", "git@github.com", 0),
        ("mailbox", "a@2x.png", 0),
        ("entropy", "mF9B5f41JqM0aZ", 14),
        ("entropy", "authentication-scheme", 0),
        ("entropy", "a1a1a1a1a1a1a1a1", 0),
        ("password", "hunter2", 7),
        ("password", "letters!", 8),
        ("password", "get_password", 0),
        ("password", "123456", 0),
    ],
)
def test_validators(validator: str, value: str, accepted: int) -> None:
    assert VALIDATORS[validator](value) == accepted


def test_fixed() -> None:
    assert replacer("[CARD]", b"key")("4111") == "[CARD]"


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("4111 1111 1111 1234", "**** **** **** 1234"),
        ("ab-cdefgh", "**-**efgh"),
        ("abcdefg", "*******"),  # would show more than it hides
        ("--", "--"),
    ],
)
def test_keep_last(value: str, masked: str) -> None:
    assert replacer(KeepLast(keep_last=4), b"key")(value) == masked


def test_pseudonyms() -> None:
    name = replacer(Pseudonym(pseudonym="CARD"), b"key")
    assert name("4111 1111") == name("4111-1111") == "[CARD-45b156]"
    assert name("4111 1112") != name("4111 1111")
    assert replacer(Pseudonym(pseudonym="CARD"), b"other")("4111 1111") != name("4111 1111")
    assert replacer(Pseudonym(pseudonym="PAN"), b"key")("1")[-7:] != name("1")[-7:]
    assert name("\ud800").startswith("[CARD-")


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("plain", "plain"),
        ("a\\nb \\td \\\\r \\x", "a\\ b \\ d \\\\  \\x"),
        ("４２\u00a0４２\u202f\u2011\u2013-", "42 42 ---"),
        ("ａＺ＠．／：", "aZ@./:"),
        ("٣४𝟗𝐀", "349A"),
        ("，！？é²½①", "，！？é²½①"),
        ("\ud800４", "\ud8004"),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text) == folded
    assert len(folded) == len(text)
