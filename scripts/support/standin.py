"""A stand-in for a model server: says what it is told to, in every dialect, with faults on request.

It is not a model. The demo and the tests use it where an exact answer, or an exact failure, is
wanted; `llamacpp.py` beside it is the real thing. What a prompt can ask for: see
`standin_dialects/answer.py`. Every request it saw is listed, and forgotten on DELETE, at
`/_standin/requests` on a second port, so that the log is no part of the server under test.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import json
import signal
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import tornado.httpserver
import tornado.iostream
import tornado.netutil
import tornado.web

from standin_dialects import ENDPOINTS, Knobs, Reply, script
from standin_dialects.frames import dumps


@dataclass(slots=True)
class Seen:
    """A request as it arrived, and how its answer ended: answering, complete, cut, client gone."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    outcome: str = "answering"

    def as_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "body": self.body.decode("utf-8", "replace"),
            "body_base64": base64.b64encode(self.body).decode(),
            "outcome": self.outcome,
        }


@dataclass(frozen=True, slots=True)
class Settings:
    key: str = ""
    delay: float = 0.002
    log: list[Seen] = field(default_factory=list)


class Model(tornado.web.RequestHandler):
    """Every path of the model server."""

    def initialize(self, settings: Settings) -> None:
        self.server = settings
        self.gone = asyncio.Event()
        request = self.request
        headers = list(request.headers.get_all())
        self.seen = Seen(request.method or "", request.uri or "", headers, request.body)
        settings.log.append(self.seen)

    def on_connection_close(self) -> None:
        if self.seen.outcome == "answering":
            self.seen.outcome = "client gone"
        self.gone.set()

    def on_finish(self) -> None:
        if self.seen.outcome == "answering":
            self.seen.outcome = "complete"

    def compute_etag(self) -> None:
        return None

    async def get(self) -> None:
        await self.answer()

    async def post(self) -> None:
        await self.answer()

    async def delete(self) -> None:
        await self.answer()

    async def answer(self) -> None:
        if not self.admitted():
            return self.fail(401, "invalid_api_key", "The stand-in's API key is missing or wrong.")
        endpoint = ENDPOINTS.get((self.request.method or "", self.request.path))
        if endpoint is None:
            return self.fail(404, "not_found", f"The stand-in has no {self.request.path}.")
        try:
            body = json.loads(self.request.body or b"{}")
            answer, knobs = script(body, self.request.headers.get("x-standin", ""))
            reply = endpoint(body, answer)
        except (ValueError, AttributeError, TypeError) as e:
            return self.fail(400, "invalid_request", f"The stand-in cannot read this: {e}")
        await self.pause(knobs.slow)
        if knobs.status:
            return self.fail(knobs.status, "standin_error", "The stand-in was told to fail.")
        try:
            await self.send(reply, knobs, answer.text)
        except tornado.iostream.StreamClosedError:
            self.on_connection_close()

    def admitted(self) -> bool:
        key, headers = self.server.key, self.request.headers
        return not key or key in (
            headers.get("Authorization", "").removeprefix("Bearer "),
            headers.get("x-api-key", ""),
        )

    def fail(self, status: int, code: str, message: str) -> None:
        self.set_status(status)
        self.finish({"error": {"message": message, "type": code, "code": code}})

    async def pause(self, seconds: float) -> None:
        """Sleep, but no longer than the caller stays."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self.gone.wait(), seconds)
            except TimeoutError:
                return

    async def send(self, reply: Reply, knobs: Knobs, text: str) -> None:
        if knobs.body:
            return self.send_unexpected(reply, knobs, text)
        self.set_header("Content-Type", reply.content_type)
        if knobs.gzip:
            self.set_header("Content-Encoding", "gzip")
        if reply.whole is None:
            self.set_header("Cache-Control", "no-cache")
            return await self.send_frames(reply, knobs)
        body = dumps(reply.whole).encode()
        if knobs.gzip:
            body = gzip.compress(body)
        if not knobs.cut:
            self.finish(body)
            return None
        self.set_header("Content-Length", len(body))
        self.write(body[: len(body) // 2])
        await self.flush()
        return self.drop()

    async def send_frames(self, reply: Reply, knobs: Knobs) -> None:
        """The stream, up to where a knob says that it goes wrong."""
        squeeze = zlib.compressobj(wbits=31) if knobs.gzip else None
        delay = self.server.delay if knobs.delay < 0 else knobs.delay
        stop = min((n for n in (knobs.cut, knobs.hang, knobs.error) if n), default=None)
        frames = list(reply.frames[:stop])
        if stop is None and not knobs.nodone:
            frames.append(reply.tail)
        if knobs.error:
            frames.append(_error_frame(reply))
        for piece in _writes(frames, knobs.bytes):
            self.write(
                squeeze.compress(piece) + squeeze.flush(zlib.Z_SYNC_FLUSH) if squeeze else piece
            )
            await self.flush()
            await self.pause(delay)
        if knobs.cut:
            return self.drop()
        if knobs.hang:
            await self.gone.wait()
            return None
        self.finish(squeeze.flush() if squeeze else None)
        return None

    def drop(self) -> None:
        """Close the connection in the middle of a body."""
        self.seen.outcome = "cut"
        connection: Any = self.request.connection
        connection.stream.close()

    def send_unexpected(self, reply: Reply, knobs: Knobs, text: str) -> None:
        """A body that the endpoint does not promise."""
        match knobs.body:
            case "html":
                self.set_header("Content-Type", "text/html; charset=utf-8")
                self.finish(f"<html><body><p>{text}</p></body></html>")
            case "plain":
                self.set_header("Content-Type", "text/plain; charset=utf-8")
                self.finish(text)
            case "broken":
                self.set_header("Content-Type", reply.content_type)
                whole = dumps(reply.whole).encode() if reply.whole else b"".join(reply.frames)
                self.finish(whole[: len(whole) // 2])
            case _:
                self.fail(400, "invalid_request", f"The stand-in has no body {knobs.body}.")


class Control(tornado.web.RequestHandler):
    """The log of requests: read it, or empty it."""

    def initialize(self, settings: Settings) -> None:
        self.log = settings.log

    def get(self) -> None:
        self.finish({"requests": [seen.as_json() for seen in self.log]})

    def delete(self) -> None:
        self.log.clear()
        self.set_status(204)


def _writes(frames: list[bytes], size: int) -> Iterator[bytes]:
    if not size:
        yield from frames
        return
    whole = b"".join(frames)
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def _error_frame(reply: Reply) -> bytes:
    error = dumps({"error": {"message": "The stand-in was told to fail.", "code": 500}})
    framed = (
        "data: " + error + "\n\n" if reply.content_type == "text/event-stream" else error + "\n"
    )
    return framed.encode()


async def serve(settings: Settings, port: int, control_port: int) -> None:
    """Serve until SIGINT or SIGTERM. Prints both addresses once they are listened on."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    model = tornado.web.Application(
        [(r"/.*", Model, {"settings": settings})], log_function=lambda handler: None
    )
    control = tornado.web.Application(
        [(r"/_standin/requests", Control, {"settings": settings})],
        log_function=lambda handler: None,
    )
    url, log_url = _listen(model, port), _listen(control, control_port)
    sys.stdout.write(f"stand-in model server at {url} (not a model: it says what it is told)\n")
    sys.stdout.write(f"requests it saw at {log_url}/_standin/requests\n")
    sys.stdout.flush()
    await stop.wait()


def _listen(application: tornado.web.Application, port: int) -> str:
    sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
    tornado.httpserver.HTTPServer(application).add_sockets(sockets)
    return f"http://127.0.0.1:{sockets[0].getsockname()[1]}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0, help="0: one of the system's choice")
    arguments.add_argument("--control-port", type=int, default=0)
    arguments.add_argument("--key", default="", help="the API key to ask for")
    arguments.add_argument(
        "--delay", type=float, default=0.002, help="seconds between two pieces of a stream"
    )
    options = arguments.parse_args()
    settings = Settings(options.key, options.delay)
    asyncio.run(serve(settings, options.port, options.control_port))


if __name__ == "__main__":
    main()
