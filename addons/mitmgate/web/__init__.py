"""The approver's side of the gate as a Tornado application: pages, the JSON API, sign-in.

It stands on the `Desk` alone (who a token is, what waits, how a profile masks) and knows nothing of
mitmproxy; the console addon gives it an address.
"""

from mitmgate.web.application import Web

__all__ = ["Web"]
