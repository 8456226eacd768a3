"""What rules find in a request or an answer, looked for where that keeps nobody waiting.

Small bodies are judged at once, larger ones in a thread, large ones in another process; what is
found is the same.
"""

from __future__ import annotations

from mitmgate.core import matching
from mitmgate.core.matching import Finding
from mitmgate.core.ruling import Ruling
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.worker import JudgeAnswer, JudgePrompt, findings
from mitmgate.exchange import Exchange
from mitmgate.reading import APART, asking, off_loop, read_asked, unreadable
from mitmgate.workers import workers


async def in_request(exchange: Exchange, rules: Ruling) -> tuple[Finding, ...]:
    """All that `rules` find in a request. Raises `Refusal`, `WorkerError`."""
    prompt, request = await exchange.read_request(), exchange.flow.request
    body, principal = prompt.body.encode() if prompt.body else b"", exchange.principal
    if len(body) <= APART:
        asked = await read_asked(request, exchange.method, exchange.target, prompt)
        if asked.size <= APART:
            return await off_loop(
                lambda: rules.asked(asked, principal), asked.size, matching.INLINE
            )
    fields = tuple(request.headers.items(multi=True))
    job = JudgePrompt(asking(request, exchange.target), fields, principal, rules.name)
    return findings(rules, await workers(len(body)).ask(job, body, rules, exchange.left))


async def in_answer(exchange: Exchange, rules: Ruling) -> tuple[Finding, ...]:
    """All that `rules` find in an answer that came whole. Raises `Refusal`, `WorkerError`."""
    answer, response = await exchange.read_answer(), exchange.flow.response
    assert response is not None
    principal, body = exchange.principal, response.raw_content or b""
    if len(body) > APART:
        job = JudgeAnswer(
            exchange.method,
            exchange.target,
            response.status_code,
            response.headers.get("content-type", ""),
            principal,
            rules.name,
        )
        said = await workers(len(body)).ask(job, body, rules)
        if "unreadable" in said:
            raise unreadable(exchange.id, DocumentError(said["unreadable"]))
        return findings(rules, said["found"])
    try:
        texts = await off_loop(lambda: answer.readings("answer"), answer.size)
    except DocumentError as e:
        raise unreadable(exchange.id, e) from None
    return await off_loop(
        lambda: rules.answered(texts, principal, exchange.method, exchange.operation),
        matching.size_of(texts),
        matching.INLINE,
    )
