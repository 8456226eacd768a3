"""What one person can do to others on the console."""

from __future__ import annotations

from typing import Any

from mitmgate.core.holds import Mark, Passage
from mitmgate.web import sessions
from mitmgate.web.sessions import Sessions


def test_nobody_signs_others_out_by_signing_in_again_and_again() -> None:
    site = Sessions()
    ann, _ = site.begin("t", 4e9, "idp:ann")
    eve = [site.begin("t", 4e9, "idp:eve")[0] for _ in range(sessions.MOST + 1)]
    assert site.find(ann)
    assert [bool(site.find(id)) for id in eve[-sessions.MOST_EACH - 1 :]] == [
        False,
        *([True] * sessions.MOST_EACH),
    ]


async def test_the_keys_of_a_request_are_masked_in_addresses_too(site: Any) -> None:
    site.write_rules(approvers={"who": {"groups": ["approvers"]}, "profile": "careful"})
    site.desk.mask = lambda profile, text: text.replace("bob@example.com", "[EMAIL]")
    passage = Passage("prompt", "metadata.bob@example.com", "wire", (Mark(0, 4, "wire-transfer"),))
    hold = site.hold("wire", passages=[passage])
    browser = await site.signed_in()
    for path in (f"/holds/{hold.id}", f"/api/holds/{hold.id}"):
        page = (await browser.get(path)).text
        assert "bob@" not in page
        assert "metadata.[EMAIL]" in page
