"""A slash that is percent-encoded ends the host for who decodes first."""

from __future__ import annotations

from mitmgate.core.ruling.network import networks


def test_who_decodes_first_finds_another_host() -> None:
    assert "loopback" in networks("http://127.0.0.1%2f@example.com")
    assert networks("https://example.com/a%2Fb?u=http%3A%2F%2F127.0.0.1") == frozenset()
