"""Bodies off the wire: decoded within bounds, parsed strictly, off the event loop when large.

Where that would take long, in another process: one that only waits for others keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mitmproxy import ctx, http
from mitmproxy.utils import human

from mitmgate import options
from mitmgate.core import ruling
from mitmgate.core.ruling import Asked
from mitmgate.core.wire.answer import AnswerError, read_answer
from mitmgate.core.wire.body import Body, UnreadBody
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.encoding import EncodingError, decode
from mitmgate.core.wire.prompt import Prompt, PromptError, read_prompt
from mitmgate.core.worker import Asking, ReadPrompt
from mitmgate.refusal import Refusal, deny
from mitmgate.workers import workers

logger = logging.getLogger(__name__)

# A bigger body is parsed in a thread: the event loop belongs to every caller.
THREAD_FROM = 32 << 10
# Seconds after which such a thread gives way. With Python's own 5 ms, a small request that is
# judged meanwhile waits so long after every search, of which it needs dozens.
GIVES_WAY = 0.0005
# From here on a body has to wait for one of a few threads of its own: the others, in which name
# servers and files are asked too, stay free for smaller ones.
LARGE = 64 << 10

# A bigger body is judged in another process, and so is one that is read as more: a thread would
# keep taking the interpreter from all others. The way there costs a millisecond, and one more a MB.
APART = 32 << 10

_large = ThreadPoolExecutor(max(2, os.cpu_count() or 2), "large bodies")


def body_limit() -> int:
    """mitmproxy's own bound on bodies, in bytes; the gate always sets one."""
    limit = getattr(getattr(ctx, "options", None), "body_size_limit", None) or options.BODY_LIMIT
    return human.parse_size(limit) or 0


async def off_loop[T](work: Callable[[], T], size: int, inline: int = THREAD_FROM) -> T:
    """Run `work` in a thread when what it reads is big enough to be felt by other callers."""
    if size <= inline:
        return work()
    sys.setswitchinterval(GIVES_WAY)
    threads = _large if size > LARGE else None
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def request_of(
    request: http.Request,
    endpoint: Endpoint,
    target: str,
    gone: Callable[[], bool] = lambda: False,
) -> tuple[bytes, Prompt]:
    """The body of a request, decoded, and what it says. Raises a 4xx `Refusal`.

    `gone` says whether the caller has left; see `Workers.ask` for what that and others raise.
    """
    if request.trailers:
        deny(400, "trailers_refused", "Request trailers are not accepted.")
    if len(request.headers.get_all("content-type")) > 1:
        deny(400, "header_twice", "Content-Type is given more than once.")
    content_type = request.headers.get("content-type", "")

    def parse(body: bytes) -> Prompt | None:
        return read_prompt(endpoint, target, content_type, body) if len(body) <= APART else None

    try:
        body, prompt = await _read(request, parse)
        if prompt is None:
            prompt = await _read_apart(asking(request, target), endpoint, body, gone)
        return body, prompt
    except EncodingError as e:
        deny(e.status, "body_undecodable", f"The request body is refused: {e}.")
    except PromptError as e:
        deny(e.status, e.code, str(e))


def asking(request: http.Request, target: str) -> Asking:
    """A request as workers are told of it."""
    method = request.data.method.decode("ascii", "replace")
    return Asking(method, target, request.headers.get("content-type", ""))


async def _read_apart(
    asking: Asking, endpoint: Endpoint, body: bytes, gone: Callable[[], bool]
) -> Prompt:
    """`read_prompt` in a worker; the prompt's body is read here if somebody asks for its texts."""
    said = await workers(len(body)).ask(ReadPrompt(asking), body, gone=gone)
    if "refused" in said:
        status, code, message = said["refused"]
        raise PromptError(status, code, message)
    assert endpoint.request is not None  # or a body is refused
    unread = UnreadBody(body, endpoint.request, said["coverage"])
    return Prompt(endpoint, asking.target, unread, said["model"], said["streams"], None)


def asked_of(
    request: http.Request, method: str, target: str, prompt: Prompt | None = None
) -> Asked:
    """What rules see of a request; without a `prompt`, of one to an endpoint nobody knows."""
    return ruling.asked_of(method, target, request.headers.items(multi=True), prompt)


async def read_asked(
    request: http.Request, method: str, target: str, prompt: Prompt | None = None
) -> Asked:
    """`asked_of`, which takes its time with a large body."""
    size = prompt.body.size if prompt and prompt.body else 0
    return await off_loop(lambda: asked_of(request, method, target, prompt), size)


async def answer_of(
    response: http.Response, endpoint: Endpoint, exchange: str
) -> tuple[bytes, Body]:
    """The body of an answer that came whole, decoded, and its texts. Raises a 502 `Refusal`."""
    content_type = response.headers.get("content-type", "")

    def parse(body: bytes) -> Body:
        return read_answer(endpoint, response.status_code, content_type, body)

    try:
        return await _read(response, parse)
    except (EncodingError, AnswerError) as e:
        raise unreadable(exchange, e) from None


def unreadable(exchange: str, error: Exception) -> Refusal:
    """An answer that nobody can read is not delivered; `exchange` is its id, for the log."""
    logger.warning("exchange %s: %s", exchange, error)
    return Refusal(502, "answer_unreadable", "The model server's answer could not be read.")


async def _read[T](message: http.Message, parse: Callable[[bytes], T]) -> tuple[bytes, T]:
    raw, limit = message.raw_content or b"", body_limit()
    coding = message.headers.get("content-encoding", "")

    def work() -> tuple[bytes, T]:
        body = decode(raw, coding, limit)
        return body, parse(body)

    # A few bytes of a coding can be very many of text.
    return await off_loop(work, len(raw) if not coding else THREAD_FROM + 1)
