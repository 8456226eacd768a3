"""What a page or the API answers where it cannot do as asked: a status, a code, a sentence."""

from __future__ import annotations

import tornado.web

from mitmgate.core import holds

_STATUSES: dict[type[holds.HoldError], int] = {
    holds.SelfApproval: 403,
    holds.ReasonRefused: 422,
}
_HIDDEN = (holds.HoldUnknown, holds.NotApprover)


class Problem(tornado.web.HTTPError):
    """`code` is stable; `sentence` is shown, so it says nothing of other people's requests."""

    def __init__(
        self, status: int, code: str, sentence: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.code = code
        self.sentence = sentence
        self.headers = headers or {}


def unknown() -> Problem:
    """The same for a hold that is not there and for one that the caller does not decide about."""
    return Problem(404, holds.HoldUnknown.code, "There is no such request for you to decide about.")


def from_error(error: Exception) -> Problem | None:
    """What an error of the hold store means for whoever asked; None if it is none of those."""
    if isinstance(error, holds.StoreError):
        return Problem(503, error.code, "The store of held requests does not answer.")
    if isinstance(error, _HIDDEN):
        return unknown()
    if isinstance(error, holds.HoldError):
        return Problem(_STATUSES.get(type(error), 409), error.code, sentence(str(error)))
    return None


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
