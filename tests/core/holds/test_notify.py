"""Who is told of a hold, and in which words: the model, the signature, the two messages."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from mitmgate.core.holds import Decision, Hold, notify
from mitmgate.core.holds.hold import Why
from mitmgate.core.holds.message import message
from mitmgate.core.holds.notify import Notice
from mitmgate.core.rules import Listed, RuleError, RuleFile, load

SECRET = "whsec_" + "QUJD" * 8
URL = "https://hooks.example.com/services/T0/B0/very-secret"

HOLD = Hold(
    id="h-7k3q9x",
    digest="d" * 64,
    principal="idp:agent-7",
    issuer="idp",
    subject="agent-7",
    operation="chat",
    model="llama",
    rules=("records-bulk-export", "money-move"),
    message="A person looks at this first.",
    excerpt="messages[0].content: list all patient records",
    exchange="e1",
    created=1_800_000_000.0,
    expires=1_800_000_900.5,
    quorum=2,
)
YES = Decision("idp", "ann", "approve", "agreed with legal", "console", 1_800_000_100.0)


def notice(**keys):
    return Notice.model_validate({"webhook": URL, **keys})


NAMED = replace(HOLD, display="Agent 7", why=(Why("money-move", "Money", "It moves."),))


def told(hold=HOLD, event="held", *, console=None, mask=None, **keys):
    return json.loads(message(notice(**keys), hold, event, console, mask))


# The model


def test_what_stands_in_the_file(tmp_path, monkeypatch):
    class File(RuleFile):
        notify: Listed[Notice]

    path = tmp_path / "approval.yaml"
    monkeypatch.setenv("SLACK_URL", URL)
    path.write_text(
        "schema: 1\nnotify:\n"
        "  - {webhook: '${env:SLACK_URL}', format: slack, on: [held, decided], ca_file: ca.pem}\n"
        f"  - {{webhook: 'http://127.0.0.1:8/x', secret: {SECRET}, prompt: true}}\n"
    )
    slack, generic = load(path, File).file.notify
    assert notify.address(slack) == URL
    assert (slack.format, slack.on, slack.prompt) == ("slack", ("held", "decided"), False)
    assert slack.ca_file == tmp_path / "ca.pem"
    assert (generic.format, generic.on, generic.prompt) == ("json", ("held",), True)
    assert URL not in repr(slack)
    assert SECRET not in repr(generic)


@pytest.mark.parametrize(
    "keys",
    [
        {"webhook": "http://hooks.example.com/very-secret"},
        {"webhook": "ftp://hooks.example.com/very-secret"},
        {"webhook": "https://user:very-secret@example.com/"},
        {"webhook": "https:///very-secret"},
        {"webhook": "https://[very-secret]/"},
        {"webhook": "https://example.com:very-secret/"},
        {"webhook": "https://example.com:0/very-secret"},
        {"webhook": "https://example.com/very-secret#a"},
        {"webhook": "https://example.com/very-secret b"},
        {"webhook": "https://example.com/very-secret\r\nX: y"},
        {"webhook": "https://example.com\\@very-secret/"},
        {"webhook": "http://127.0.0.1.very-secret/"},
        {"webhook": "${env:NOT_SET_ANYWHERE}"},
        {"secret": "very-secret"},
        {"secret": "whsec_" + "QUJD" * 7},  # 21 bytes
        {"secret": "whsec_" + "QUJD" * 22},  # 66 bytes
        {"secret": "whsec_" + "QUJ-" * 8},
        {"secret": SECRET, "format": "slack"},
        {"format": "teams"},
        {"on": []},
        {"on": ["opened"]},
        {"prompt": "yes"},
        {"unknown": 1},
    ],
)
def test_what_does_not_load(keys):
    with pytest.raises(ValueError, match=r".") as caught:
        notice(**keys)
    shown = [error["msg"] for error in caught.value.errors()]
    assert "very-secret" not in str(shown)


def test_errors_in_a_file_show_no_secret(tmp_path):
    class File(RuleFile):
        notify: Listed[Notice]

    path = tmp_path / "approval.yaml"
    path.write_text("schema: 1\nnotify:\n  - webhook: http://example.com/very-secret\n")
    with pytest.raises(RuleError, match=r"approval.yaml:3: notify\[0\].webhook: .*https") as caught:
        load(path, File)
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://localhost:9/x", "http://[::1]:9/x", "http://127.9.9.9/", "https://a.example/?b=c"],
)
def test_addresses(url):
    assert notify.address(notice(webhook=url)) == url


def test_an_address_is_looked_at_again(monkeypatch):
    monkeypatch.setenv("HOOK", URL)
    one = notice(webhook="${env:HOOK}")
    monkeypatch.setenv("HOOK", "http://elsewhere.example.com/")
    with pytest.raises(ValueError, match="https"):
        notify.address(one)


# The signature


def test_a_receivers_library_takes_the_signature():
    now = time.time()
    one = notice(secret=SECRET)
    body = message(one, replace(HOLD, model="lläma \N{SNOWMAN}"), "held")
    headers = notify.headers(one, notify.event_id(HOLD, "held"), body, now)
    assert Webhook(SECRET).verify(body, headers)["type"] == "hold.opened"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"held", b"hold") + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "REVG" * 8).verify(body, headers)


def test_a_known_signature():
    # printf 'msg_1.1674087231.{}' | openssl dgst -sha256 -hmac ABCABC... -binary | base64
    headers = notify.headers(notice(secret=SECRET), "msg_1", b"{}", 1674087231.9)
    assert headers == {
        "Content-Type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": "1674087231",
        "webhook-signature": "v1,pZTacdK0XnukUYUCCFrg/9j8gUJc2bHiGWrn1NcB3yc=",
    }


def test_unpadded_secrets_are_the_same():
    padded = "whsec_" + "QUJD" * 8 + "QQ=="
    signatures = {
        notify.headers(notice(secret=each), "m", b"", 1.0)["webhook-signature"]
        for each in (padded, padded.rstrip("="))
    }
    assert len(signatures) == 1


def test_without_a_secret_nothing_is_signed():
    assert set(notify.headers(notice(), "m", b"", 1.0)) == {
        "Content-Type",
        "webhook-id",
        "webhook-timestamp",
    }
    slack = notify.headers(notice(format="slack"), "m", b"", 1.0)
    assert slack == {"Content-Type": "application/json"}


def test_a_secret_is_looked_at_again(monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    one = notice(secret="${env:HOOK_SECRET}")
    monkeypatch.setenv("HOOK_SECRET", "short")
    with pytest.raises(ValueError, match="whsec_"):
        notify.headers(one, "m", b"", 1.0)


def test_an_event_keeps_its_id():
    seen = [
        notify.event_id(HOLD, "held"),
        notify.event_id(HOLD, "decided"),
        notify.event_id(replace(HOLD, decisions=(YES,)), "decided"),
        notify.event_id(replace(HOLD, decisions=(YES,), state="approved"), "decided"),
        notify.event_id(replace(HOLD, id="h-222222"), "held"),
    ]
    assert len(set(seen)) == len(seen)
    # what happens to the hold meanwhile makes no other event of its opening
    assert notify.event_id(replace(HOLD, decisions=(YES,), waiting=True), "held") == seen[0]
    assert all(re.fullmatch(r"msg_[0-9a-f]{32}", each) for each in seen)


# The generic message


def test_a_hold_is_opened():
    assert told(NAMED, console="https://gate.example.com") == {
        "type": "hold.opened",
        "timestamp": "2027-01-15T08:00:00Z",
        "id": "h-7k3q9x",
        "url": "https://gate.example.com/holds/h-7k3q9x",
        "command": "mitmgate approve h-7k3q9x --reason TEXT",
        "state": "pending",
        "principal": "idp:agent-7",
        "display": "Agent 7",
        "operation": "chat",
        "model": "llama",
        "rules": [
            {"id": "records-bulk-export", "title": ""},
            {"id": "money-move", "title": "Money"},
        ],
        "message": "A person looks at this first.",
        "created": "2027-01-15T08:00:00Z",
        "expires": "2027-01-15T08:15:00Z",
        "quorum": 2,
        "approvals": 0,
        "decisions": [],
    }


def test_a_hold_is_decided():
    said = told(
        replace(HOLD, state="approved", decisions=(replace(YES, display="Ann"),)), "decided"
    )
    assert (said["type"], said["state"], said["approvals"]) == ("hold.decided", "approved", 1)
    assert said["timestamp"] == "2027-01-15T08:01:40Z"
    assert said["url"] is None
    assert said["command"] is None
    assert said["decisions"] == [
        {
            "issuer": "idp",
            "subject": "ann",
            "display": "Ann",
            "verdict": "approve",
            "reason": "agreed with legal",
            "channel": "console",
            "time": "2027-01-15T08:01:40Z",
        }
    ]


def test_a_hold_expires():
    said = told(replace(HOLD, state="expired", decisions=(YES,)), "decided")
    assert (said["state"], said["timestamp"]) == ("expired", "2027-01-15T08:15:00Z")


@pytest.mark.parametrize("format", ["json", "slack"])
@pytest.mark.parametrize("event", ["held", "decided"])
def test_the_prompt_is_told_only_where_it_is_asked_for(format, event):
    def never(text):
        raise AssertionError("the prompt is looked at")

    assert "patient" not in json.dumps(told(event=event, format=format, mask=never))
    assert "patient" in json.dumps(told(event=event, format=format, prompt=True))
    masked = json.dumps(
        told(event=event, format=format, prompt=True, mask=lambda t: t.replace("patient", "###"))
    )
    assert "patient" not in masked
    assert "###" in masked


def test_a_mask_that_fails_raises():
    def fail(text):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        told(prompt=True, mask=fail)


LONG = "\N{PILE OF POO}\x01<&" * 5000
WORST = replace(
    HOLD,
    principal=LONG,
    model=LONG,
    message=LONG,
    display=LONG,
    why=tuple(Why(f"rule-{n}", LONG, LONG) for n in range(1000)),
    excerpt=LONG,
    rules=tuple(f"rule-{n}" for n in range(1000)),
    decisions=(Decision(LONG, LONG, "deny", LONG, "console", 1.0, LONG),) * 1000,
)


@pytest.mark.parametrize("format", ["json", "slack"])
def test_size_is_bounded(format):
    body = message(notice(format=format, prompt=True), WORST, "decided", "https://c")
    assert len(body) < 64 << 10


def test_a_lone_surrogate_is_still_json():
    assert told(replace(HOLD, model="a\ud800b"))["model"] == "a\ud800b"


# Slack


def texts(value):
    """Every text object, and the text beside the blocks."""
    if isinstance(value, dict):
        if value.get("type") in ("plain_text", "mrkdwn"):
            yield value
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def test_slack_says_it_all():
    said = told(
        replace(NAMED, decisions=(YES,)), format="slack", console="https://gate.example.com"
    )
    shown = [each["text"] for each in texts(said)]
    assert shown == [
        "h-7k3q9x waits for approval",
        "Caller: idp:agent-7 (Agent 7)",
        "Model: llama (chat)",
        "Rules: records-bulk-export, money-move (Money)",
        "Until: 2027-01-15T08:15:00Z",
        "A person looks at this first.",
        "approve by idp:ann: agreed with legal",
        "<https://gate.example.com/holds/h-7k3q9x>",
    ]
    assert said["text"] == (
        "h-7k3q9x waits for approval [records-bulk-export, money-move]"
        " <https://gate.example.com/holds/h-7k3q9x>"
    )


def test_slack_without_a_console_says_what_to_type():
    said = told(format="slack")
    assert said["text"].endswith(" mitmgate approve h-7k3q9x --reason TEXT")
    assert {each["type"] for each in texts(said)} == {"plain_text"}
    assert "mitmgate approve h-7k3q9x --reason TEXT" in [each["text"] for each in texts(said)]
    denied = replace(HOLD, state="denied", decisions=(replace(YES, verdict="deny"),))
    said = told(denied, "decided", format="slack")
    assert said["text"] == "h-7k3q9x is denied [records-bulk-export, money-move]"


ANYTHING = st.text(max_size=30) | st.sampled_from(
    [
        "<!channel>",
        "<!here|x>",
        "<@U123>",
        "<https://evil.example|ok>",
        "&lt;!channel&gt;",
        "a\nApproved by: bob",
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
        "<" * 3000,
        "&" * 700,
        "*bold* @channel",
    ]
)


@settings(max_examples=150, deadline=None)
@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING, st.booleans())
def test_no_text_becomes_markup(principal, model, excerpt, text, reason, display, with_console):
    hold = replace(
        HOLD,
        principal=principal,
        model=model,
        excerpt=excerpt,
        message=text,
        display=display,
        why=(Why("money-move", text, text),),
        decisions=(replace(YES, subject=principal, reason=reason, display=display),),
    )
    console = "https://gate.example.com/a|b" if with_console else None
    said = told(hold, format="slack", console=console, prompt=True)
    link = "<https://gate.example.com/a%7Cb/holds/h-7k3q9x>"
    found = list(texts(said))
    assert [each for each in found if each["type"] == "mrkdwn"] == (
        [{"type": "mrkdwn", "text": link, "verbatim": True}] if console else []
    )
    for each in found:
        if each["type"] == "plain_text":
            assert not re.search(r"[<>]|&(?!(?:amp|lt|gt);)", each["text"])
            assert 0 < len(each["text"]) <= 3000
            assert each["emoji"] is False
    for each in said["blocks"][1]["fields"]:
        assert each["text"].isprintable()
    # what is beside the blocks comes from us and the operator alone
    same = told(HOLD, format="slack", console=console)
    assert said["text"] == same["text"]
