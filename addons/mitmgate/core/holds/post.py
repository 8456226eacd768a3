"""One try to tell a webhook: a POST that is bounded in time and size, and what came of it.

Nothing but the one URL is talked to: no redirects, no proxies from the environment, TLS verified.
No error shows more of the URL than the host, for the URL of a webhook is a secret.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.netutil import Resolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from mitmgate.core.holds import notify
from mitmgate.core.holds.notify import Notice

TIMEOUT = 15.0  # seconds for one try; Standard Webhooks: 15 to 30
MAX_ANSWER = 1 << 20
MAX_RETRY_AFTER = 900.0
_AGAIN = {408, 429}


class PostError(Exception):
    """A try that did not succeed.

    `final` says that another would not either; `after` is for how many seconds the receiver asks
    to be left alone.
    """

    def __init__(self, host: str, reason: str, *, final: bool = False, after: float = 0.0) -> None:
        self.final = final
        self.after = after
        super().__init__(f"{host} {reason}")


async def post(notice: Notice, event_id: str, body: bytes) -> str:
    """Send `body`, and return the host that took it (2xx). Raises `PostError`.

    The address, the secret and whom to trust are read anew from where they are kept.
    """
    host, request = await aside(lambda: _request(notice, event_id, body))
    client = SimpleAsyncHTTPClient(
        force_instance=True,
        max_buffer_size=MAX_ANSWER,
        max_body_size=MAX_ANSWER,
        resolver=_Resolver(),
    )
    try:
        response = await client.fetch(request, raise_error=False)
    except (OSError, HTTPClientError) as e:
        raise PostError(host, f"cannot be reached: {e}") from None
    except Exception as e:  # its text may be the URL
        raise PostError(host, f"broke off: {type(e).__name__}") from None
    finally:
        client.close()
    code = response.code
    if 200 <= code < 300:
        return host
    note = " (redirects are not followed)" if 300 <= code < 400 else ""
    raise PostError(
        host,
        f"answered {code}{note}",
        final=300 <= code < 500 and code not in _AGAIN,
        after=_seconds(response.headers.get("Retry-After", "")),
    )


def _request(notice: Notice, event_id: str, body: bytes) -> tuple[str, HTTPRequest]:
    try:
        url = notify.address(notice)
        headers = notify.headers(notice, event_id, body, time.time())
    except ValueError as e:
        raise PostError(repr(notice.webhook), f"cannot be used: {e}") from None
    parts = urlsplit(url)
    try:
        secure = parts.scheme == "https"
        trust = ssl.create_default_context(cafile=notice.ca_file) if secure else None
    except OSError as e:
        raise PostError(str(notice.ca_file), f"holds no authorities: {e.strerror or e}") from None
    return parts.netloc, HTTPRequest(
        url,
        method="POST",
        headers={"User-Agent": "mitmgate", **headers},
        body=body,
        connect_timeout=TIMEOUT,
        request_timeout=TIMEOUT,
        follow_redirects=False,
        decompress_response=False,
        ssl_options=trust,
    )


def _seconds(retry_after: str) -> float:
    """Of a Retry-After (RFC 9110 section 10.2.3), within bounds; 0 for one that says nothing."""
    try:
        if retry_after.isascii() and retry_after.isdigit():
            seconds = float(retry_after)
        else:
            when = parsedate_to_datetime(retry_after)
            seconds = when.replace(tzinfo=when.tzinfo or UTC).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


class _Resolver(Resolver):
    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        found = await aside(lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
        return [(kind, address) for kind, _, _, _, address in found]


async def aside[T](work: Callable[[], T]) -> T:
    """What `work` returns, in a thread of its own.

    A name server or a file system that hangs then takes no thread of the pool that bodies are
    parsed in, and does not keep the process from ending.
    """
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from here on, who gives up waiting cannot cancel it

    def run() -> None:
        try:
            result = work()
        except Exception as e:
            done.set_exception(e)
        else:
            done.set_result(result)

    threading.Thread(target=run, name="notices", daemon=True).start()
    return await asyncio.wrap_future(done)
