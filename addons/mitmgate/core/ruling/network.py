"""Where an address leads that the model server would fetch from: to itself, inside, or out.

Servers read addresses with different libraries, and each way in which one of them may read a host
counts: numbers in decimal, octal and hex, names and passwords before the host, backslashes, IPv4
inside IPv6. What a name resolves to is not asked: a public name may lead inside (DNS rebinding),
against which only the model server's own network helps.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

from mitmgate.core.rules.rule import Network

type _Address = IPv4Address | IPv6Address

# `host:8000` begins like a scheme, and is none.
_SCHEME = re.compile(r"(?ai)(https?|[a-z][\w.+-]*(?=:[/\\])|[a-z][a-z+.-]+(?=:(?!\d))):")
_IGNORED = re.compile(r"[\t\r\n]")  # by browsers and by urllib, wherever it stands
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")  # which IDNA takes for one
_HOST = re.compile(r"[\w.-]{1,255}")

# Where clouds answer with the credentials of the machine.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ),
    )
)
_METADATA_NAMES = ("metadata", "instance-data", "metadata.goog")
_PRIVATE = tuple(
    map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
_PRIVATE_6 = tuple(map(IPv6Network, ("fc00::/7", "fec0::/10")))
_NAT64 = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
_LOOPBACK_NAMES = ("localhost", "localdomain", "ip6-localhost", "ip6-loopback")
_LOCAL_SUFFIXES = (
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "svc",
    "home.arpa",
)


def networks(address: str) -> frozenset[Network]:
    """Every kind of place that `address` may lead to; none is the public network.

    An address without a scheme is a host, or a path on the server's own disk.
    """
    text = _IGNORED.sub("", address).strip("".join(map(chr, range(33))))
    found: set[Network] = set()
    scheme = _SCHEME.match(text)
    if scheme:
        text = text[scheme.end() :]
        if scheme[1].lower() not in ("http", "https"):
            found.add("scheme")
            if not text.startswith(("//", "\\\\")):
                return frozenset(found)
    elif text.startswith(("/", "\\", ".", "~")) and not text.startswith(("//", "\\\\", "/\\")):
        return frozenset(["scheme"])
    rest = text.lstrip("/\\")
    if not rest:
        return frozenset(found or {"unreadable"})
    for host in dict.fromkeys((*_hosts(rest), *_hosts(unquote(rest)))):
        found |= _kinds(host)
    return frozenset(found)


def _hosts(text: str) -> Iterator[str]:
    """The host, in every way in which a reader may find where it begins and ends."""
    for ends in (r"[/?#]", r"[/\\?#]"):
        authority = re.split(ends, text, maxsplit=1)[0]
        for piece in (authority, unquote(authority)):
            user, *hosts = piece.split("@")
            yield from map(_without_port, hosts or [user])


def _without_port(text: str) -> str:
    inside = text.partition("]")[0][1:] if text.startswith("[") else ""
    if ":" in inside:
        return inside
    return text if text.count(":") > 1 else text.partition(":")[0]


def _kinds(host: str) -> set[Network]:
    host = unicodedata.normalize("NFKC", unquote(host).translate(_DOTS)).casefold().rstrip(".")
    addresses = list(_addresses(host))
    if addresses:
        return {kind for address in addresses for kind in _of(address)}
    if not _HOST.fullmatch(host) or host.startswith("."):
        return {"unreadable"}
    steps = host.split(".")
    found: set[Network] = set()
    if steps[-1] in _LOOPBACK_NAMES:
        found.add("loopback")
    if steps[0] in _METADATA_NAMES or host in _METADATA_NAMES:
        found.add("metadata")
    if len(steps) == 1 or host.endswith(tuple(f".{suffix}" for suffix in _LOCAL_SUFFIXES)):
        found.add("local-name")
    if re.fullmatch(r"0x[\da-f]*|\d+", steps[-1]):  # a number that is no address
        found.add("unreadable")
    return found


def _addresses(host: str) -> Iterator[_Address]:
    """The addresses that a host spells: IPv6, and IPv4 in one to four numbers of any base."""
    if ":" in host:
        try:
            yield from _inside(IPv6Address(host.partition("%")[0]))
        except ValueError:
            return
        return
    steps = host.split(".")
    if len(steps) <= 4:
        for octal in (True, False):  # 010 is 8 to some and 10 to others
            try:
                numbers = [_number(step, octal=octal) for step in steps]
                *high, low = numbers
                if all(number < 256 for number in high) and low < 256 ** (5 - len(steps)):
                    value = low
                    for place, number in enumerate(high):
                        value += number << (24 - 8 * place)
                    yield IPv4Address(value)
            except ValueError:
                continue


def _number(text: str, *, octal: bool) -> int:
    if not text.isascii() or "_" in text or not text[:1].isdigit():
        raise ValueError(text)
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if octal and text.startswith("0") else int(text, 10)


def _inside(address: IPv6Address) -> Iterator[_Address]:
    """An IPv6 address, and the IPv4 address that it stands for."""
    yield address
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield address.teredo[1]
    if any(address in network for network in _NAT64) and int(address) > 1:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _of(address: _Address) -> set[Network]:
    found: set[Network] = set()
    if address in _METADATA:
        found.add("metadata")
    if (
        address.is_loopback
        or address.is_unspecified
        or (isinstance(address, IPv4Address) and address in IPv4Network("0.0.0.0/8"))
    ):
        found.add("loopback")
    if address.is_link_local:
        found.add("link-local")
    ours = _PRIVATE if isinstance(address, IPv4Address) else _PRIVATE_6
    if any(address in network for network in ours):
        found.add("private")
    if not found and (not address.is_global or address.is_multicast or address.is_reserved):
        found.add("reserved")
    return found
