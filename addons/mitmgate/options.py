"""The options that the addons share, and mitmproxy's own that would open the gate beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader

# mitmproxy reads this one for requests and for answers that do not stream.
BODY_LIMIT = "16m"

# Options with which traffic passes the addons, or is changed behind them.
_CONFLICTS = {
    "stream_large_bodies": "requests would leave before the rules have read them",
    "ignore_hosts": "those hosts would pass the gate unread",
    "allow_hosts": "all other hosts would pass the gate unread",
    "tcp_hosts": "those hosts would pass the gate as raw TCP",
    "udp_hosts": "those hosts would pass the gate as raw UDP",
    "map_remote": "requests would go to other servers after the rules have read them",
    "map_local": "answers would come from files that nothing has masked",
    "modify_body": "bodies would change after the rules have read them",
    "modify_headers": "headers, credentials among them, would change after the gate has set them",
    "intercept": "a request could be edited after the rules have read it; hold rules hold requests",
    "upstream_auth": "a credential would be sent that the gate has not chosen",
    "stickyauth": "one caller's credentials would be sent for another",
    "stickycookie": "one caller's cookies would be sent for another",
    "validate_inbound_headers": "a header could hold a second request, which nobody would read",
}
_NEEDED = {"validate_inbound_headers"}  # of these, the ones that have to stay on
# mitmproxy's defaults that the gate changes: as it is, and as it has to be.
_DEFAULTS: dict[str, tuple[Any, Any]] = {
    "rawtcp": (True, False),  # what is not HTTP would pass unread
    "connection_strategy": ("eager", "lazy"),  # a refused caller has no business with the server
    "body_size_limit": (None, BODY_LIMIT),
}
_MODES = ("reverse:http://", "reverse:https://", "transparent")


def add(loader: Loader) -> None:
    """Register the shared options: once for every addon, which is harmless."""
    loader.add_option(
        "gate_rules",
        str,
        str(Path(__file__).parent.parent.parent / "rules"),
        "Directory of the gate's rule files.",
    )
    loader.add_option(
        "gate_state",
        str,
        ".mitmgate",
        "Directory in which the gate keeps holds, journal and recordings.",
    )
    loader.add_option(
        "gate_console",
        str,
        "127.0.0.1:8082",
        "Address of the console, with /metrics, /healthz and /readyz. Empty switches it off.",
    )


def rules(name: str) -> Path:
    """The rule file of the addon `name`."""
    return Path(ctx.options.gate_rules).expanduser() / f"{name}.yaml"


def state(*parts: str) -> Path:
    """A directory below `gate_state`, made if it is not there, readable by its owner alone.

    Raises `OptionsError` when it cannot be made.
    """
    directory = Path(ctx.options.gate_state).expanduser().joinpath(*parts)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another gate that starts now looks, too
    except OSError as e:
        raise exceptions.OptionsError(
            f"gate_state: cannot write in {directory}: {e.strerror}; "
            "choose another directory with --set gate_state=DIR"
        ) from None
    return directory


def conflicts(updated: Any) -> list[str]:
    """What is wrong with mitmproxy's own options, a sentence each."""
    found = [
        f"the option {name} cannot be {'switched off' if name in _NEEDED else 'used'} "
        f"with the gate: {reason}"
        for name, reason in _CONFLICTS.items()
        if name in updated
        and bool(getattr(ctx.options, name, name in _NEEDED)) is not (name in _NEEDED)
    ]
    if {"mode", "server"} & set(updated) and getattr(ctx.options, "server", False):
        found += [
            f"the gate does not guard mode {mode!r}: "
            "use --mode reverse:http://HOST:PORT, reverse:https://HOST:PORT or transparent"
            for mode in ctx.options.mode
            if not mode.startswith(_MODES)
        ]
    return found


def settle() -> None:
    """Set what the gate needs of mitmproxy's options where the operator has not."""
    # An option belongs to the addon that brings it, and in a test that addon may not be there.
    changes = {
        name: wanted
        for name, (default, wanted) in _DEFAULTS.items()
        if getattr(ctx.options, name, wanted) == default
    }
    if changes:
        ctx.options.update(**changes)
