"""What every page does first: headers, the Host check, who is asking, and is it their own doing.

Fail closed: a handler says with `open` and `method` what it lets through; all else needs somebody
who is signed in, and every request that changes something needs their CSRF token.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import tornado.web

from mitmgate.approvals import Approvals
from mitmgate.core.holds import HoldError, StoreError
from mitmgate.web import caller
from mitmgate.web.caller import Caller
from mitmgate.web.problem import Problem, from_error

if TYPE_CHECKING:
    from mitmgate.web.application import Web

logger = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with that, browsers send `Origin: null` with our own forms as well.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}


class Checked(tornado.web.RequestHandler):
    """Headers and the Host check; the base of pages, API and static files."""

    web: Web

    def initialize(self, web: Web) -> None:
        self.web = web

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def check_host(self) -> None:
        """A page of another name that resolves to this address must not read ours.

        A browser that was told an address, not a name, cannot have been misled.
        """
        try:
            host = urlsplit(f"//{self.request.host}").hostname or ""
        except ValueError:
            host = ""
        if host in ("localhost", self.web_host) or _is_address(host):
            return
        raise Problem(421, "host_unknown", "The console does not answer under this name.")

    @property
    def web_url(self) -> str:
        """Where people reach the console, as approval.yaml has it; may be empty."""
        approvals = self.web.desk.approvals
        return (approvals.rules.console.url or "") if approvals else ""

    @property
    def web_host(self) -> str | None:
        return urlsplit(self.web_url).hostname

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        where = f"console: {self.request.method} {self.request.path}"
        if isinstance(value, StoreError):
            logger.error("%s: %s", where, value)
        elif not isinstance(value, tornado.web.HTTPError | HoldError):
            logger.error("%s failed", where, exc_info=(typ, value, tb))

    def problem_of(self, error: BaseException | None, status: int) -> Problem:
        """What may be said about `error`; of what is no answer, nothing."""
        if isinstance(error, Problem):
            return error
        if isinstance(error, Exception) and (known := from_error(error)):
            return known
        sentences = {400: "This cannot be read.", 404: "There is nothing here."}
        sentences[405] = "This is not how to ask for it."
        code = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
        if status in sentences:
            return Problem(status, code[status], sentences[status])
        return Problem(500, "console_fault", "The console has failed; the gate's log says why.")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        problem = self.problem_of(kwargs.get("exc_info", (None, None))[1], status_code)
        self.set_status(problem.status_code)
        for name, value in problem.headers.items():
            self.set_header(name, value)
        self.write_problem(problem)

    def write_problem(self, problem: Problem) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{problem.sentence}\n")


class Handler(Checked):
    """A page that knows who is asking: `self.caller`, None only where `open`."""

    open: ClassVar[bool] = False
    api: ClassVar[bool] = False
    touches: ClassVar[bool] = True  # whether it counts as something that the person did
    caller: Caller | None = None

    async def prepare(self) -> None:
        self.check_host()
        changes = self.request.method not in ("GET", "HEAD")
        if changes:
            self.check_origin()
        try:
            self.caller = await caller.find(self)
        except Problem:
            if not self.open:
                raise
        if self.caller is None and not self.open:
            raise Problem(401, "signin_needed", "Sign in first.", {"WWW-Authenticate": "Bearer"})
        if changes and not self.open and self.caller and self.caller.via != "bearer":
            self.check_csrf(self.caller.csrf)

    def check_origin(self) -> None:
        """What another site made the browser send is refused, whatever it carries."""
        site = self.request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = self.request.headers.get("Origin")
        own = {f"http://{self.request.host}", f"https://{self.request.host}", self._origin()}
        if site not in ("same-origin", "none") or (origin is not None and origin not in own):
            raise Problem(403, "cross_site", "This was sent from another site.")

    def check_csrf(self, expected: str) -> None:
        sent = self.request.headers.get("X-CSRF-Token", "")
        if not sent and not self.api:
            sent = self.get_body_argument("csrf", "")
        if not hmac.compare_digest(sent.encode(), expected.encode()):
            sentence = "The form was out of date: load the page again and send it once more."
            raise Problem(403, "csrf", sentence)

    def _origin(self) -> str:
        parts = urlsplit(self.web_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def approvals(self) -> Approvals:
        if self.web.desk.approvals is None:
            raise Problem(503, "no_approvals", "This gate runs without the approval addon.")
        return self.web.desk.approvals

    @property
    def me(self) -> Caller:
        assert self.caller is not None  # `prepare` refuses nobody
        return self.caller

    @property
    def secure(self) -> bool:
        """Whether people reach the console through TLS, so that cookies need not travel without."""
        return self.web_url.startswith("https:")

    def cookie_name(self, name: str) -> str:
        return f"__Host-{name}" if self.secure else name

    def keep_cookie(self, name: str, value: str) -> None:
        self.set_cookie(
            self.cookie_name(name),
            value,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self.secure,
        )

    def drop_cookie(self, name: str) -> None:
        # With the attributes it was set with: browsers ignore a __Host- cookie without Secure.
        self.set_cookie(
            self.cookie_name(name),
            "",
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self.secure,
            max_age=0,
        )


class Static(Checked, tornado.web.StaticFileHandler):
    """Style and script: the same for everybody, and nothing to hide."""

    def initialize(self, web: Web, path: str) -> None:  # type: ignore[override]
        Checked.initialize(self, web)
        tornado.web.StaticFileHandler.initialize(self, path)

    def prepare(self) -> None:
        self.check_host()

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")


class Nowhere(Checked):
    """What no other handler answers."""

    def prepare(self) -> None:
        self.check_host()
        raise Problem(404, "not_found", "There is nothing here.")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
