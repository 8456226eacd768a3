from __future__ import annotations

from pathlib import Path

import pytest

from mitmgate.core.masking import Masking

ORDINARY = Path(__file__).with_name("ordinary.txt").read_text("utf-8").splitlines()
MADE = {  # what should be found, by what is written
    "email": "Write to Alice.O+tag@sub.example.org today.",
    "phone": "Ring +44 (0)20 7946 0958 or (212) 555-2368.",
    "payment-card": "card: 5555-5555-5555-4444, thanks",
    "iban": "Konto DE89 3704 0044 0532 0130 00 bei",
    "us-ssn": "ssn=536-90-4399",
    "uk-nino": "NI QQ123456C no, NI AB123456C yes",
    "ipv4": "client 198.51.100.23:443 closed",
    "ipv6": "client [2001:db8:85a3::8a2e:370:7334]:443",
    "mac": "eth0 ether 3c:22:fb:0a:1b:2c txqueuelen",
    "us-itin": "ITIN 912-90-3456, filed",
    "us-ein": "Our EIN is 91-1144442.",
    "uk-nhs": "Patient, NHS No. 943 476 5870",
    "de-tax-id": "Die Steuer-ID von Frau Roth: 36 574 261 809.",
    "fr-nir": "NIR : 2 95 10 99 126 111 93",
    "es-dni": "con DNI 54362315-K y domicilio",
    "it-codice-fiscale": "codice fiscale RCCMNL83S18D969H,",
    "nl-bsn": "| BSN | 111222333 |",
    "pl-pesel": "PESEL: **44051401359**",
    "se-personnummer": "Personnummer: 19880320-0016",
    "in-aadhaar": "Aadhaar No: 2341-2341-2346",
    "br-cpf": "CPF nº 390.533.447-05",
    "passport": "<td>Passport No</td><td>X1234567</td>",
    "driving-licence": "Driver's license #: D1234567",
    "birth-date": "- **Date of birth:** March 3, 1985",
    "azure-secret": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=" + "Eby8vdM02xN" * 8,
    "basic-auth": "curl -H 'Authorization: Basic dXNlcjpwYXNzd29yZA=='",
    "registry-token": "npm login with " + "npm_" + "0aB1cD2eF3" * 3 + "4gH5iJ",
    "aws-access-key": "key AKIAIOSFODNN7EXAMPLE",
    "url-credentials": "redis://default:p4ss@cache:6379/0",
    "password-pair": "export DB_PASSWORD='c0rrect-horse'",
}


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_text_is_not_touched(shipped: Masking, line: str) -> None:
    masked = shipped.profile("default").answer.mask(line)
    assert masked.hits == ()
    assert masked.text == line


def test_ordinary_text_as_one(shipped: Masking) -> None:
    text = "\n".join(ORDINARY)
    stream = shipped.profile("default").answer.stream()
    assert "".join(map(stream.feed, text)) + stream.finish() == text


@pytest.mark.parametrize(("id_", "text"), MADE.items(), ids=MADE.keys())
def test_values_are_found_among_all_recognizers(shipped: Masking, id_: str, text: str) -> None:
    assert id_ in [hit.recognizer for hit in shipped.profile("default").answer.mask(text).hits]


def test_each_recognizer_finds_its_samples_among_the_others(
    shipped: Masking, samples: dict[str, tuple[str, ...]]
) -> None:
    masker = shipped.profile("default").answer
    for id_, group in samples.items():
        for sample in group:
            assert id_ in [hit.recognizer for hit in masker.mask(sample).hits], sample


def test_masking_twice_changes_nothing_more(
    shipped: Masking, samples: dict[str, tuple[str, ...]]
) -> None:
    masker = shipped.profile("default").answer
    for group in samples.values():
        for sample in group:
            once = masker.mask(f"x {sample} y").text
            assert masker.mask(once).text == once


def test_profiles(shipped: Masking) -> None:
    assert set(shipped.profiles) == {"default", "cleared", "strict"}
    default, strict = shipped.profile("default"), shipped.profile("strict")
    assert default.answer is strict.answer  # compiled once
    assert not default.prompt
    assert "email" in strict.answer.ids
    assert "email" not in strict.prompt.ids
    assert "jwt" in strict.prompt.ids


def test_an_unknown_profile_is_named(shipped: Masking) -> None:
    with pytest.raises(KeyError, match="no masking profile 'lax'; there are: cleared, default, st"):
        shipped.profile("lax")


PEM = "-----BEGIN RSA PRIVATE KEY-----\n{}-----END RSA PRIVATE KEY-----"
BODY = "MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7MhgHcTz6sE2I2yPB\n"


@pytest.mark.parametrize(
    "key",
    [
        PEM.format(BODY * 25),
        PEM.format(f"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{'0F' * 16}\n\n{BODY}"),
        PEM.format(BODY).replace("\n", "\\n"),
        '"' + PEM.format(BODY * 2).replace("\n", '\\n"\n  "') + '"',
        PEM.format(BODY).replace("RSA ", ""),
        PEM.format(BODY).replace("RSA", "OPENSSH").replace("\n", "\r\n"),
    ],
    ids=["plain", "encrypted", "escaped", "literal", "pkcs8", "crlf"],
)
def test_private_keys_whole(shipped: Masking, key: str) -> None:
    masked = shipped.profile("default").answer.mask(f"Here: {key} and on.").text
    assert masked.replace('"', "") == "Here: [PRIVATE KEY] and on."
