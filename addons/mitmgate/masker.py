"""PII masker: what the model answers is masked before the caller sees it, streamed or not.

Which recognizers apply is the grant's choice (`masking` names a profile in masker.yaml). Where the
profile lists recognizers for prompts, the request is masked on its way to the model too.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from mitmproxy import ctx, exceptions, http

from mitmgate import options
from mitmgate.core import masking
from mitmgate.core.rules import load
from mitmgate.core.wire.body import Body
from mitmgate.desk import Desk
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon
from mitmgate.reading import off_loop
from mitmgate.rulefile import RuleFile


def read(path: Path, key: bytes) -> tuple[masking.Masking, str]:
    """masker.yaml, compiled and self-tested; `key` makes pseudonyms. Raises `RuleError`."""
    loaded = load(path, masking.MaskerFile)
    return masking.compile(loaded, key=key), loaded.digest


class Masker(GateAddon):
    """Reads masker.yaml."""

    name = "mitmgate.masker"

    def __init__(self) -> None:
        self._key = b""
        self._file = RuleFile(lambda path: read(path, self._key))

    def configure(self, updated: set[str]) -> None:
        if "gate_state" in updated:
            self._key = _pseudonym_key()
        if "gate_rules" in updated or "gate_state" in updated:
            self._file.load(options.rules("masker"))

    def running(self) -> None:
        self._file.watch()
        Desk.of(ctx.master).mask = self._masked

    def done(self) -> None:
        self._file.stop()
        Desk.of(ctx.master).mask = None

    def _masked(self, profile: str, text: str) -> str:
        """A text as answers of a profile are masked. Raises `LookupError` for an unknown one."""
        masker = self._file.rules.profile(profile).answer
        return masker.mask(text).text if masker else text

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        exchange.verdict.digests["masker"] = self._file.digest
        prompt = await exchange.read_request()
        masker = self._file.rules.profile(exchange.masking).prompt
        if masker and prompt.body:
            await self._mask(exchange, prompt.body, masker, exchange.replace_request)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        masker = self._file.rules.profile(exchange.masking).answer
        if masker and exchange.streams:
            exchange.filters.append(StreamMask(masker, exchange.verdict.masked))

    async def response(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        masker = self._file.rules.profile(exchange.masking).answer
        if masker and exchange.delivery is None:
            answer = await exchange.read_answer()
            await self._mask(exchange, answer, masker, exchange.replace_answer)

    async def _mask(
        self,
        exchange: Exchange,
        body: Body,
        masker: masking.Masker,
        replace: Callable[[bytes], None],
    ) -> None:
        counts = exchange.verdict.masked

        def work() -> bytes | None:
            body.edit(lambda text: _mask_text(masker, text, counts))
            return body.encode() if body.edited else None

        masked = await off_loop(work, body.size)
        if masked is not None:
            replace(masked)


class StreamMask:
    """The masker as a filter of a stream."""

    masks = True

    def __init__(self, masker: masking.Masker, counts: dict[str, int]) -> None:
        self._masker = masker
        self._counts = counts

    def channel(self) -> _Channel:
        return _Channel(self._masker.stream(), self._counts)

    def whole(self, text: str) -> str:
        return _mask_text(self._masker, text, self._counts)


class _Channel:
    def __init__(self, stream: masking.StreamMasker, counts: dict[str, int]) -> None:
        self._stream = stream
        self._counts = counts

    def feed(self, text: str) -> str:
        return self._stream.feed(text)

    def finish(self) -> str:
        rest = self._stream.finish()
        for name, count in self._stream.hits.items():
            self._counts[name] = self._counts.get(name, 0) + count
        return rest


def _mask_text(masker: masking.Masker, text: str, counts: dict[str, int]) -> str:
    masked = masker.mask(text)
    for hit in masked.hits:
        counts[hit.recognizer] = counts.get(hit.recognizer, 0) + 1
    return masked.text


def _pseudonym_key() -> bytes:
    """The key of pseudonyms: made once and kept, so that a value keeps its pseudonym."""
    path = options.state() / "pseudonym.key"
    try:
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(secrets.token_bytes(32))
        key = path.read_bytes()
    except OSError as e:
        raise exceptions.OptionsError(f"{path}: {e.strerror}") from None
    if len(key) != 32:
        raise exceptions.OptionsError(f"{path}: should hold 32 bytes; remove it to make a new one")
    return key
