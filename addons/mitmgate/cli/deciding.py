"""`mitmgate holds`, `approve` and `deny`: what waits for a person, and the decision."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mitmgate.approval import describe
from mitmgate.core import holds
from mitmgate.core.rules import RuleError, load
from mitmgate.core.wire.segment import plain

LIVING: tuple[holds.State, ...] = ("pending", "approved")
WATCH = 0.5  # seconds between two looks at what waits


def show_holds(options: argparse.Namespace) -> int:
    """List the requests that wait for a person, and those approved but not yet sent again."""
    with _store(options.state) as store:
        shown = {hold.id: hold.state for hold in store.list(LIVING)}
        for hold in store.list(LIVING):
            _show(hold)
        if not shown and not options.watch:
            print("nothing waits")
        while options.watch:
            time.sleep(WATCH)
            for id, state in store.states(shown).items():
                if state != shown[id]:
                    print(f"{id} is {state}", flush=True)
                    shown[id] = state
            shown = {id: state for id, state in shown.items() if state in LIVING}
            for hold in store.list(LIVING):
                if hold.id not in shown:
                    _show(hold)
                    shown[hold.id] = hold.state
    return 0


def _show(hold: holds.Hold) -> None:
    print(f"{describe(hold)}{'' if hold.waiting else ', nobody waits on the line'}")
    print(f"    {hold.message}")
    for line in hold.excerpt.splitlines():
        print(f"    | {plain(line)}")
    sys.stdout.flush()


def decide(options: argparse.Namespace) -> int:
    """Approve or deny a held request, as the user of this machine, if approval.yaml lets them."""
    who = holds.account()
    try:
        file = load(_approval_rules(options), holds.ApprovalFile).file
    except RuleError as e:
        print(e, file=sys.stderr)
        return 1
    with _store(options.state) as store:
        holds.decide(store, file, options.hold, who, options.verdict, options.reason, "cli")
        hold = store.get(options.hold)
    print(f"{hold.id} is {hold.state}")
    if hold.state == "pending":
        print(f"{hold.approvals} of {hold.quorum} approvals")
    elif hold.state == "approved" and not hold.waiting:
        print("nobody waits on the line: the same request goes through when it is sent again")
    return 0


def _approval_rules(options: argparse.Namespace) -> Path:
    """The approval.yaml that the gate goes by. Raises `ValueError` where that is not known."""
    if options.rules:
        path: Path = options.rules / "approval.yaml"
        return path
    try:
        return Path((options.state / holds.IN_FORCE).read_text("utf-8"))
    except OSError:
        raise ValueError(
            f"no gate has used {options.state}: name its rules with --rules DIR"
        ) from None


class _store:
    """The holds of a gate, closed again at the end."""

    def __init__(self, state: Path) -> None:
        self._store = holds.HoldStore(state / "holds.sqlite", create=False)

    def __enter__(self) -> holds.HoldStore:
        return self._store

    def __exit__(self, *error: object) -> None:
        self._store.close()
