"""What Prometheus can scrape: every metric of the gate, in one registry.

Addons set them, the console serves them; an addon of your own may add its metrics to `REGISTRY`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

REGISTRY = CollectorRegistry()

EXCHANGES = Counter(
    "mitmgate_exchanges",
    "Exchanges by operation and how they ended.",
    ["operation", "ending", "refusal"],
    registry=REGISTRY,
)
MASKED = Counter("mitmgate_masked", "Values masked.", ["recognizer"], registry=REGISTRY)
FINDINGS = Counter(
    "mitmgate_findings", "Rules that were hit.", ["rule", "mode", "view"], registry=REGISTRY
)
NOTIFICATIONS = Counter(
    "mitmgate_notifications",
    "Messages about held requests: delivered, dropped, and tries that were repeated.",
    ["result"],
    registry=REGISTRY,
)
KEYS_AGE = Gauge(
    "mitmgate_keys_age_seconds",
    "Time since an issuer's keys were last had from it; NaN before the first time.",
    ["issuer"],
    registry=REGISTRY,
)
KEYS_STALE = Gauge(
    "mitmgate_keys_stale",
    "1 while the newest look for an issuer's keys has failed and older ones serve.",
    ["issuer"],
    registry=REGISTRY,
)
