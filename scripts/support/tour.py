"""What the demo shows, step by step; each says what is expected and fails when it is not so."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chat import Answer, ask
from processes import ROOT, Process
from screen import Screen
from standin_dialects.answer import DEFAULT_TEXT

MITMGATE = Path(sys.executable).with_name("mitmgate")
UPSTREAM_KEY = "the-model-servers-own-key"
PERSONAL = ("jane.doe@example.com", "4111 1111 1111 1111", "7946 0958", "1234 5698 7654 32")


class UnexpectedError(Exception):
    """The gate did not do what the tour says it does."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What the tour works with. `directory` holds rules and state; `model` is a granted name."""

    screen: Screen
    directory: Path
    gate: Process
    url: str
    token: str
    model: str
    real: bool  # a real model answers, not the stand-in

    @property
    def state(self) -> Path:
        return self.directory / ".mitmgate"

    def body(self, prompt: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, "max_tokens": 80, **more}

    def rule(self, name: str) -> dict[str, Any]:
        """The first enforced rule on prompts in a rule file: the tour uses its own sample."""
        rules = yaml.safe_load((self.directory / "rules" / f"{name}.yaml").read_text())["rules"]
        return next(
            rule
            for rule in rules
            if rule["action"] in ("deny", "hold")
            and rule.get("status", "stable") == "stable"
            and "prompt" in rule.get("where", ["prompt"])
        )

    def mitmgate(self, *arguments: str) -> str:
        """Run the `mitmgate` command on this demo's state; its output. Raises if it fails."""
        done = subprocess.run(  # noqa: S603  (our own command)
            [MITMGATE, *arguments, "--state", self.state],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise UnexpectedError(
                f"mitmgate {' '.join(arguments)} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise UnexpectedError(what)
        self.screen.good(what)

    def show(self, answer: Answer) -> None:
        text = " ".join(f"{answer.code}: {answer.text}".removeprefix(": ").split())
        self.screen.field(str(answer.status), text if len(text) < 100 else f"{text[:99]}…")


def no_token(demo: Demo) -> None:
    demo.screen.step(1, "Without a token there is no answer")
    answer = ask(demo.url, demo.body("hello"))
    demo.show(answer)
    demo.screen.field("challenge", answer.headers.get("www-authenticate", ""))
    demo.expect(answer.status == 401, "refused with 401 before anything reached the model")


def wrong_model(demo: Demo) -> None:
    demo.screen.step(2, "agent-7 has a token, but no grant for this model")
    answer = ask(demo.url, {**demo.body("hello"), "model": "secret-70b"}, demo.token)
    demo.show(answer)
    demo.expect(answer.status == 403, "refused with 403: grants in identity.yaml name the models")


def blocked_prompt(demo: Demo) -> None:
    rule = demo.rule("commands")
    prompt = rule["tests"]["match"][0]
    demo.screen.step(3, f"A prompt that the rule {rule['id']} denies")
    demo.screen.field("prompt", prompt)
    answer = ask(demo.url, demo.body(prompt), demo.token)
    demo.show(answer)
    demo.expect(answer.status == 403, "refused with 403")
    named = answer.headers.get("x-gate-rule", "")
    demo.expect(rule["id"] in named, f"X-Gate-Rule: {named}")


def masked_stream(demo: Demo) -> None:
    demo.screen.step(4, "An answer with personal data, masked while it streams")
    demo.screen.say(f"The model says: {DEFAULT_TEXT}")
    body = demo.body(f"say: {DEFAULT_TEXT}", stream=True)
    if demo.real:
        # A small model says anything; its grammar makes it say this, a token at a time.
        body["grammar"] = f"root ::= {json.dumps(DEFAULT_TEXT)}"
    demo.screen.piece("   The caller gets: ")
    answer = ask(demo.url, body, demo.token, heard=demo.screen.piece)
    demo.screen.line()
    demo.expect(answer.status == 200 and answer.complete, "the stream is complete")
    leaked = [value for value in PERSONAL if value in answer.text]
    demo.expect(not leaked, f"nothing personal got through{': ' if leaked else ''}{leaked or ''}")
    demo.expect("Jane Doe" in answer.text, "and what is not personal data did")


def held_prompt(demo: Demo, once: bool) -> None:
    rule = demo.rule("approval")
    prompt = rule["tests"]["match"][0]
    demo.screen.step(5, f"A prompt that waits for a person: {rule['id']}")
    demo.screen.field("prompt", prompt)
    seen = demo.gate.mark()
    caller = Caller(demo, demo.body(prompt))
    caller.start()
    hold = demo.gate.wait_line(r"mitmgate approve (\S+) --reason", since=seen)[1]
    demo.expect(hold in demo.mitmgate("holds"), f"`mitmgate holds` lists it as {hold}")
    reason = "shown in the demo"
    if once:
        demo.mitmgate("approve", hold, "--reason", reason)
    else:
        command = f'{shown(MITMGATE)} approve {hold} --reason "{reason}"'
        demo.screen.say("The caller waits. In another terminal, let it through:")
        demo.screen.command(f"{command} --state {shown(demo.state)}")
        demo.screen.say("or deny it, or press the play button beside it in mitmweb.")
    answer = caller.answer()
    demo.show(answer)
    if once:
        demo.expect(answer.status == 200, f"hold {hold} was approved, and the caller got an answer")
    else:
        outcome = "let through" if answer.status == 200 else "refused"
        demo.screen.good(f"{outcome}, and who said so is in the recording")


def recording(demo: Demo, once: bool) -> None:
    demo.screen.step(6, "All of it is on disk")
    files = sorted(demo.state.rglob("*.mitm"))
    demo.expect(bool(files), f"{len(files)} recording(s) below {shown(demo.state)}")
    for line in demo.mitmgate("verify").splitlines():
        demo.screen.good(line)
    recorded = files[-1].read_bytes()
    demo.expect(demo.token.encode() not in recorded, "the caller's token is not in it")
    demo.expect(UPSTREAM_KEY.encode() not in recorded, "nor is the model server's key")
    if not once:  # which leaves nothing to open
        demo.screen.say("Open it in mitmweb, or check that nobody changed it:")
        mitmweb = MITMGATE.with_name("mitmweb")
        views = ROOT / "addons" / "views.py"
        demo.screen.command(f"{shown(mitmweb)} -n -s {shown(views)} -r {shown(files[-1])}")
        demo.screen.command(f"{shown(MITMGATE)} verify --state {shown(demo.state)}")


class Caller(threading.Thread):
    """A caller that waits, and asks again when it is told `pending, try again`, as SDKs do."""

    def __init__(self, demo: Demo, body: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._demo = demo
        self._body = body
        self._answer: Answer | None = None
        self._failure: Exception | None = None

    def run(self) -> None:
        try:
            while True:
                answer = ask(self._demo.url, self._body, self._demo.token)
                if answer.status != 409:
                    self._answer = answer
                    return
                time.sleep(float(answer.headers.get("retry-after", "1")))
        except (OSError, http.client.HTTPException, ValueError) as e:
            self._failure = e

    def answer(self) -> Answer:
        self.join()
        if self._answer is None:
            raise UnexpectedError(f"the held call failed: {self._failure}")
        return self._answer


def take(demo: Demo, *, once: bool) -> None:
    """The whole tour. Raises `UnexpectedError`, and what the HTTP client raises."""
    for step in (no_token, wrong_model, blocked_prompt, masked_stream):
        step(demo)
    held_prompt(demo, once)
    recording(demo, once)


def shown(path: Path) -> str:
    """A path as one would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
