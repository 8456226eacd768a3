"""Where an address leads, however it is spelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.ruling.network import networks


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("http://127.0.0.1/", "loopback"),
        ("http://127.1/", "loopback"),
        ("http://2130706433/", "loopback"),
        ("http://0x7f000001/", "loopback"),
        ("http://0x7f.1/", "loopback"),
        ("http://0177.0.0.1/", "loopback"),
        ("http://017700000001", "loopback"),
        ("http://0/", "loopback"),
        ("http://0.0.0.0:8000/", "loopback"),
        ("http://[::1]:8000/", "loopback"),
        ("http://[::]/", "loopback"),
        ("http://[::ffff:127.0.0.1]/", "loopback"),
        ("http://[::ffff:7f00:1]/", "loopback"),
        ("http://[::127.0.0.1]/", "loopback"),
        ("http://[64:ff9b::7f00:1]/", "loopback"),
        ("http://[2002:7f00:1::]/", "loopback"),
        ("http://localhost", "loopback"),
        ("http://LOCALHOST./", "loopback"),
        ("http://a.localhost/", "loopback"),
        ("http://localhost.localdomain/", "loopback"),
        ("http://127.0.0.1./", "loopback"),
        ("http://127\u30020\uff0e0\uff611/", "loopback"),
        ("http://\uff11\uff12\uff17.0.0.1/", "loopback"),
        ("http://%31%32%37.0.0.1/", "loopback"),
        ("http://127.0.0.%31/", "loopback"),
        ("http:/127.0.0.1/", "loopback"),
        ("http:127.0.0.1/", "loopback"),
        ("http:\\\\127.0.0.1\\x", "loopback"),
        ("ht\ttp://127.0.\n0.1/", "loopback"),
        ("\x01 http://127.0.0.1/", "loopback"),
        ("//127.0.0.1/x", "loopback"),
        ("/\\127.0.0.1/x", "loopback"),
        ("127.0.0.1:8000/x", "loopback"),
        ("localhost:8000", "loopback"),
        ("http://good.example@127.0.0.1/", "loopback"),
        ("http://good.example:pw@127.0.0.1:80/", "loopback"),
        ("http://good.example\\@127.0.0.1/", "loopback"),
        ("http://a@127.0.0.1@good.example/", "loopback"),
        ("http://a%40127.0.0.1/", "loopback"),
        ("HTTPS://127.0.0.1/", "loopback"),
        ("http://169.254.1.1/", "link-local"),
        ("http://[fe80::1%25eth0]/", "link-local"),
        ("http://10.0.0.1/", "private"),
        ("http://012.0.0.1/", "private"),
        ("http://010.0.0.1/", "private"),
        ("http://172.16.9.9/", "private"),
        ("http://192.168.257/", "private"),
        ("http://100.64.0.1/", "private"),
        ("http://[fd12::1]/", "private"),
        ("http://169.254.169.254/latest/meta-data/", "metadata"),
        ("http://0xa9fea9fe/", "metadata"),
        ("http://[fd00:ec2::254]/", "metadata"),
        ("http://100.100.100.200/", "metadata"),
        ("http://metadata.google.internal/", "metadata"),
        ("http://metadata/", "metadata"),
        ("http://vllm:8000/", "local-name"),
        ("http://vllm.ai.svc.cluster.local/", "local-name"),
        ("http://nas.home.arpa/", "local-name"),
        ("http://db.corp./", "local-name"),
        ("http://224.0.0.1/", "reserved"),
        ("http://240.0.0.1/", "reserved"),
        ("http://192.0.2.1/", "reserved"),
        ("http://[2001:db8::1]/", "reserved"),
        ("file:///etc/passwd", "scheme"),
        ("FILE:/etc/passwd", "scheme"),
        ("ftp://example.com/x", "scheme"),
        ("gopher://example.com/", "scheme"),
        ("s3://bucket/key", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("/etc/passwd", "scheme"),
        ("../etc/passwd", "scheme"),
        ("~/x", "scheme"),
        ("", "unreadable"),
        ("http://", "unreadable"),
        ("http:///", "unreadable"),
        ("http://1.2.3.4.5/", "unreadable"),
        ("http://300.1.1.1/", "unreadable"),
        ("http://exa mple.com/", "unreadable"),
        ("http://[::1/", "loopback"),
        ("http://[zz]/", "unreadable"),
    ],
)
def test_what_leads_inside(address: str, kind: str) -> None:
    assert kind in networks(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/cat.png",
        "http://example.com:8443/a@b?c=d#e",
        "https://user:pw@example.com/",
        "HTTPS://EXAMPLE.COM./x",
        "https://example.com/127.0.0.1",
        "https://example.com/?to=http://127.0.0.1/",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]/x",
        "example.com/cat.png",
        "https://127.0.0.1.example.com/",
        "https://b\u00fccher.example.com/",
    ],
)
def test_what_leads_outside(address: str) -> None:
    assert networks(address) == frozenset()


@given(st.text(max_size=60))
def test_any_text_is_read_somehow(address: str) -> None:
    networks(address)
    networks("http://" + address)


@given(st.integers(0, 2**24 - 1), st.sampled_from("doxf"))
def test_every_spelling_of_an_address_is_that_address(low: int, base: str) -> None:
    number = (127 << 24) + low
    spelled = {"d": str(number), "o": f"0{number:o}", "x": hex(number), "f": f"::ffff:{number:x}"}
    host = spelled[base]
    if base == "f":
        host = f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]"
    assert "loopback" in networks(f"http://{host}/")
