"""What people are told about a hold: the generic JSON, and the message for Slack.

No prompt is in either unless the rule file asks for it, everything is bounded, and no caller's text
can become markup: a model called `<!channel>` calls nobody.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mitmgate.core.holds.hold import Hold
from mitmgate.core.holds.notify import Event, Notice

TYPES: dict[Event, str] = {"held": "hold.opened", "decided": "hold.decided"}

# Characters. All of a message together stays far below what receivers take.
_NAME, _REASON, _MESSAGE, _EXCERPT = 200, 500, 1000, 2000
_RULES = _DECISIONS = 10
_FIELD, _TEXT = 1000, 3000  # of one text in Slack, which takes 2000 and 3000, once escaped


def message(
    notice: Notice,
    hold: Hold,
    event: Event,
    console: str | None = None,
    mask: Callable[[str], str] | None = None,
) -> bytes:
    """The body that tells of `event`. `console` is the console's URL, as approvers reach it.

    `mask` gives what the approvers may read of a text. It is called only if the prompt goes out,
    and what it raises is passed on.
    """
    excerpt = None
    if notice.prompt:
        excerpt = mask(hold.excerpt) if mask else hold.excerpt
    write = _slack if notice.format == "slack" else _json
    content = write(hold, event, console, excerpt)
    # a lone surrogate, which UTF-8 cannot express, is left as JSON's own escape
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _json(hold: Hold, event: Event, console: str | None, excerpt: str | None) -> dict[str, Any]:
    titles = {why.rule: why.title for why in hold.why}
    decisions = [
        {
            "issuer": _cut(each.issuer),
            "subject": _cut(each.subject),
            "display": _cut(each.display),
            "verdict": each.verdict,
            "reason": _cut(each.reason, _REASON),
            "channel": each.channel,
            "time": _time(each.time),
        }
        for each in hold.decisions[-_DECISIONS:]
    ]
    content = {
        "type": TYPES[event],
        "timestamp": _time(_happened(hold, event)),
        "id": hold.id,
        "url": _link(hold, console),
        "command": _command(hold),
        "state": hold.state,
        "principal": _cut(hold.principal),
        "display": _cut(hold.display),
        "operation": hold.operation,
        "model": _cut(hold.model),
        "rules": [{"id": id, "title": _cut(titles.get(id, ""))} for id in hold.rules[:_RULES]],
        "message": _cut(hold.message, _MESSAGE),
        "created": _time(hold.created),
        "expires": _time(hold.expires),
        "quorum": hold.quorum,
        "approvals": hold.approvals,
        "decisions": decisions,
    }
    return content if excerpt is None else content | {"excerpt": _cut(excerpt, _EXCERPT)}


def _slack(hold: Hold, event: Event, console: str | None, excerpt: str | None) -> dict[str, Any]:
    """Blocks of plain text, and one link.

    The link is text rather than a button, with which Slack calls back an app that does not answer.
    `text` is for notifications and for programs like Slack that show no blocks and have markup of
    their own, so it has nothing in it that a caller wrote.
    """
    titles = {why.rule: why.title for why in hold.why}
    rules = [_named(id, titles.get(id, "")) for id in hold.rules[:_RULES]]
    title = f"{hold.id} waits for approval" if event == "held" else f"{hold.id} is {hold.state}"
    fields = {
        "Caller": _named(hold.principal, hold.display),
        "Model": _named(hold.model, hold.operation),
        "Rules": ", ".join(rules),
        "Until": _time(hold.expires),
    }
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(title, 150)},
        {
            "type": "section",
            "fields": [_plain(f"{name}: {text}", _FIELD) for name, text in fields.items()],
        },
    ]
    texts = [hold.message] if hold.message else []
    texts += [
        f"{each.verdict} by {_named(f'{each.issuer}:{each.subject}', each.display)}: "
        + _cut(each.reason, _REASON)
        for each in hold.decisions[-_DECISIONS:]
    ]
    blocks += [{"type": "section", "text": _plain(text, _TEXT)} for text in texts]
    if excerpt:
        blocks.append({"type": "section", "text": _plain(excerpt, _TEXT, lines=True)})
    link, command = _link(hold, console), _command(hold)
    if link:
        # the link's own markup ends at | and >
        where = f"<{html.escape(link, quote=False).replace('|', '%7C')}>"
        text = {"type": "mrkdwn", "text": where, "verbatim": True}
        blocks.append({"type": "section", "text": text})
    else:
        where = command or ""
        if command:
            blocks.append({"type": "section", "text": _plain(command, _TEXT)})
    return {
        "text": " ".join(filter(None, [title, f"[{', '.join(hold.rules[:_RULES])}]", where])),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _plain(text: str, limit: int, *, lines: bool = False) -> dict[str, Any]:
    """A text object that Slack does not look into for markup.

    It is escaped all the same, as Slack asks for. What is not printable is replaced, so that no
    name brings a line of its own or turns the direction of the text around it.
    """
    kept = "\n\t" if lines else ""
    text = "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)
    text = html.escape(text, quote=False)
    if len(text) > limit:
        text = re.sub(r"&[a-z]*$", "", text[: limit - 1]) + "\N{HORIZONTAL ELLIPSIS}"
    return {"type": "plain_text", "text": text or "-", "emoji": False}


def _named(id: str, display: str) -> str:
    return f"{_cut(id)} ({_cut(display)})" if display else _cut(id)


def _link(hold: Hold, console: str | None) -> str | None:
    return f"{console.removesuffix('/')}/holds/{hold.id}" if console else None


def _command(hold: Hold) -> str | None:
    return f"mitmgate approve {hold.id} --reason TEXT" if hold.state == "pending" else None


def _happened(hold: Hold, event: Event) -> float:
    if event == "held":
        return hold.created
    if hold.state == "expired" or not hold.decisions:
        return hold.expires
    return hold.decisions[-1].time


def _time(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(text: str, limit: int = _NAME) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
