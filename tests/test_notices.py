"""The queues between the gate and its webhooks: what is repeated, what given up, what shows."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

import pytest
import tornado.httpserver
import tornado.web
from mitmproxy.log import ALERT

from mitmgate import metrics, notices
from mitmgate.core.holds import ApprovalFile, Hold
from mitmgate.core.holds import post as posting
from mitmgate.core.holds.file import ConsoleAccess
from mitmgate.core.holds.notify import Notice
from mitmgate.notices import Notices

HOLD = Hold(
    id="h-7k3q9x",
    digest="d" * 64,
    principal="idp:agent-7",
    issuer="idp",
    subject="agent-7",
    operation="chat",
    model="llama",
    rules=("money-move",),
    message="A person looks at this first.",
    excerpt="list all patient records",
    exchange="e1",
    created=time.time(),
    expires=time.time() + 900,
    quorum=1,
)


class Receiver:
    """Answers with `statuses`, one after the other, and 200 from then on."""

    def __init__(self):
        self.statuses = []
        self.got = []
        self.came = asyncio.Event()
        self.hang = asyncio.Event()
        self.hang.set()
        self.retry_after = ""
        receiver = self

        class Hook(tornado.web.RequestHandler):
            async def post(self):
                receiver.got.append(self.request)
                receiver.came.set()
                await receiver.hang.wait()
                if receiver.statuses:
                    self.set_status(receiver.statuses.pop(0))
                    if receiver.retry_after:
                        self.set_header("Retry-After", receiver.retry_after)

        self.server = tornado.httpserver.HTTPServer(
            tornado.web.Application([("/.*", Hook)], log_function=lambda handler: None)
        )
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        self.server.add_sockets(sockets)
        self.host = f"127.0.0.1:{sockets[0].getsockname()[1]}"

    def notice(self, **keys):
        return Notice.model_validate({"webhook": f"http://{self.host}/very-secret", **keys})

    @property
    def bodies(self):
        return [request.body for request in self.got]

    async def close(self):
        self.hang.set()
        self.server.stop()
        await self.server.close_all_connections()


@pytest.fixture
async def receiver():
    receiver = Receiver()
    yield receiver
    await receiver.close()


@pytest.fixture
async def other():
    receiver = Receiver()
    yield receiver
    await receiver.close()


def rules(*listed):
    file = ApprovalFile.model_validate({"schema": 1, "rules": []})
    console = ConsoleAccess(url="https://gate.example.com")
    return file.model_copy(update={"notify": listed, "console": console})


class Told:
    """Notices to some webhooks, with the waits between tries kept rather than waited for."""

    def __init__(self, *listed, mask=lambda hold, text: text):
        self.rules = rules(*listed)
        self.waits = []
        self.before = counts()
        self.notices = Notices(lambda: self.rules, mask, sleep=self._sleep)

    async def _sleep(self, seconds):
        self.waits.append(seconds)

    async def settled(self):
        """When nothing is left to tell. Returns what was counted: delivered, retried, dropped."""
        while tasks := [q._task for q in self.notices._queues.values() if not q.idle]:
            await asyncio.wait(tasks, timeout=20)
        return tuple(b - a for a, b in zip(self.before, counts(), strict=True))


def counts():
    return [
        metrics.REGISTRY.get_sample_value("mitmgate_notifications_total", {"result": result}) or 0
        for result in ("delivered", "retried", "dropped")
    ]


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert "very-secret" not in caplog.text
    assert "patient" not in caplog.text


def alerts(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == ALERT]


async def test_a_hold_is_told(receiver, caplog):
    told = Told(receiver.notice())
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (1, 0, 0)
    assert b'"url": "https://gate.example.com/holds/h-7k3q9x"' in receiver.bodies[0]
    assert f"{receiver.host} was told of h-7k3q9x" in caplog.text
    assert alerts(caplog) == []


async def test_only_what_is_asked_for_is_told(receiver, other):
    told = Told(receiver.notice(), other.notice(on=["decided"]))
    told.notices.notify(HOLD, "held")
    told.notices.notify(replace(HOLD, state="denied"), "decided")
    assert await told.settled() == (2, 0, 0)
    assert [b"hold.opened" in body for body in receiver.bodies] == [True]
    assert [b"hold.decided" in body for body in other.bodies] == [True]


async def test_a_try_that_fails_is_repeated_as_the_same_event(receiver):
    told = Told(receiver.notice())
    receiver.statuses = [500, 503, 408]
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (1, 3, 0)
    assert len({request.headers["webhook-id"] for request in receiver.got}) == 1
    assert len(set(receiver.bodies)) == 1
    for wait, most in zip(told.waits, [1, 2, 4], strict=True):
        assert most / 2 <= wait <= most


async def test_it_is_given_up_after_some_tries(receiver, caplog):
    told = Told(receiver.notice())
    receiver.statuses = [500] * 100
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (0, notices.ATTEMPTS - 1, 1)
    assert len(receiver.got) == notices.ATTEMPTS
    assert max(told.waits) <= notices.LONGEST
    assert alerts(caplog) == [
        f"somebody was not told of h-7k3q9x: {receiver.host} answered 500",
    ]


@pytest.mark.parametrize("status", [302, 400, 403, 404, 410])
async def test_a_final_answer_is_not_questioned(receiver, status, caplog):
    told = Told(receiver.notice())
    receiver.statuses = [status]
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (0, 0, 1)
    assert len(receiver.got) == 1
    assert f"answered {status}" in alerts(caplog)[0]


async def test_a_receiver_may_ask_for_time(receiver):
    told = Told(receiver.notice())
    receiver.statuses, receiver.retry_after = [429], "40"
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (1, 1, 0)
    assert told.waits == [40]


async def test_nobody_is_told_too_late(receiver, other):
    told = Told(receiver.notice(), other.notice(on=["held", "decided"]))
    over = replace(HOLD, expires=time.time() - 1)
    told.notices.notify(over, "held")
    assert await told.settled() == (0, 0, 2)
    assert receiver.got == other.got == []
    told.notices.notify(replace(over, state="expired"), "decided")
    assert await told.settled() == (1, 0, 2)
    assert len(other.got) == 1


async def test_a_try_that_would_come_too_late_is_not_made(receiver):
    told = Told(receiver.notice())
    receiver.statuses, receiver.retry_after = [429], "40"
    told.notices.notify(replace(HOLD, expires=time.time() + 30), "held")
    assert await told.settled() == (0, 0, 1)
    assert len(receiver.got) == 1


async def test_one_that_hangs_delays_no_other_and_nobody_else(receiver, other):
    told = Told(receiver.notice(), other.notice())
    receiver.hang.clear()
    started = time.monotonic()
    for _ in range(3):
        told.notices.notify(HOLD, "held")
    assert time.monotonic() - started < 0.5
    while len(other.got) < 3:
        other.came.clear()
        await asyncio.wait_for(other.came.wait(), 10)
    assert len(receiver.got) <= 1
    receiver.hang.set()
    assert await told.settled() == (6, 0, 0)


async def test_one_that_hangs_is_tried_again(receiver, monkeypatch):
    monkeypatch.setattr(posting, "TIMEOUT", 0.1)
    told = Told(receiver.notice())
    receiver.hang.clear()
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (0, notices.ATTEMPTS - 1, 1)


async def test_the_loop_goes_on_while_rules_and_masks_are_slow(receiver):
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def mask(hold, text):
        # it returns only if the loop runs meanwhile
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        return "###"

    told = Told(receiver.notice(prompt=True), mask=mask)
    told.notices.notify(HOLD, "held")
    await asyncio.sleep(0)
    release.set()
    assert await told.settled() == (1, 0, 0)
    assert b'"excerpt": "###"' in receiver.bodies[0]


async def test_a_full_queue_drops_the_oldest_and_says_so_once(receiver, monkeypatch, caplog):
    monkeypatch.setattr(notices, "QUEUE", 3)
    told = Told(receiver.notice())
    for n in range(8):  # nothing is sent before the loop runs
        told.notices.notify(replace(HOLD, id=f"h-{n}"), "held")
    assert await told.settled() == (3, 0, 5)
    assert [body.split(b'"id": "')[1][:3] for body in receiver.bodies] == [b"h-5", b"h-6", b"h-7"]
    assert len(alerts(caplog)) == 1
    for _ in range(5):
        told.notices.notify(HOLD, "held")
    assert len(alerts(caplog)) == 2
    await told.settled()


async def test_what_cannot_be_masked_is_not_shown(receiver, caplog):
    def fail(hold, text):
        assert hold == HOLD
        raise ZeroDivisionError(text)

    told = Told(receiver.notice(prompt=True), mask=fail)
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (1, 0, 0)
    assert b"patient" not in receiver.bodies[0]
    assert b"excerpt" not in receiver.bodies[0]
    assert alerts(caplog) == ["h-7k3q9x is told without its prompt: ZeroDivisionError"]


async def test_a_fault_of_our_own_is_an_alert_and_nothing_else(receiver, caplog, monkeypatch):
    def fail(*args):
        raise RuntimeError("very-secret")

    told = Told(receiver.notice())
    monkeypatch.setattr(notices, "message", fail)
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (0, 0, 1)
    Notices(fail, fail).notify(HOLD, "held")
    assert alerts(caplog) == [
        "somebody was not told of h-7k3q9x: RuntimeError",
        "nobody is told of h-7k3q9x: RuntimeError",
    ]


def test_without_a_loop_nothing_is_raised(caplog):
    notice = Notice.model_validate({"webhook": "http://127.0.0.1:1/very-secret"})
    Told(notice).notices.notify(HOLD, "held")
    assert alerts(caplog) == ["nobody is told of h-7k3q9x: RuntimeError"]


async def test_the_list_is_followed(receiver, other):
    told = Told(receiver.notice(), receiver.notice())
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (1, 0, 0)  # listed twice is told once
    told.rules = rules(other.notice())
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (2, 0, 0)
    assert len(receiver.got) == len(other.got) == 1
    assert list(told.notices._queues) == [other.notice()]


async def test_close(receiver):
    told = Told(receiver.notice())
    receiver.hang.clear()
    for _ in range(3):
        told.notices.notify(HOLD, "held")
    await asyncio.wait_for(receiver.came.wait(), 10)
    told.notices.close()
    told.notices.close()
    assert await told.settled() == (0, 0, 0)
    told.notices.notify(HOLD, "held")
    assert await told.settled() == (0, 0, 0)
    assert len(receiver.got) == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "notices"]
