"""Rules that most end-to-end tests start from: small, and no part of the sample in `rules/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from issuer import Tokens

UPSTREAM_KEY = "sk-upstream-0123456789"
Rules = Mapping[str, Mapping[str, Any] | str]  # file name without .yaml -> content


def baseline(tokens: Tokens, upstream: str, directory: Path, key: str = UPSTREAM_KEY) -> Rules:
    """Rules under which a token of `tokens` with the scope `inference` may do everything.

    The groups `approvers` decide; `weights-export` is denied, `wire-transfer` is held; e-mail
    addresses, cards, phone numbers and IBANs are masked except for the group `cleared`.
    """
    key_file = directory / "upstream-key"
    key_file.write_text(key)
    return {
        "identity": {
            "schema": 1,
            "issuers": [
                {
                    "id": "test-idp",
                    "issuer": tokens.issuer,
                    "audience": tokens.audience,
                    "keys": {"jwks_file": str(tokens.jwks_file)},
                    "algorithms": ["ES256"],
                    "max_lifetime": "1h",
                    "leeway": "2s",
                }
            ],
            "grants": [
                {
                    "id": "cleared",
                    "who": {"scopes": ["inference"], "groups": ["cleared"]},
                    "operations": ["*"],
                    "models": ["*"],
                    "masking": "cleared",
                },
                {
                    "id": "callers",
                    "who": {"scopes": ["inference"]},
                    "operations": ["*"],
                    "models": ["*"],
                    "masking": "default",
                },
            ],
        },
        "commands": {
            "schema": 1,
            "rules": [
                {
                    "id": "weights-export",
                    "title": "Export of model weights",
                    "action": "deny",
                    "match": r"\bexport\b.{0,40}\bweights\b",
                    "message": "Weights do not leave through this gateway.",
                    "tests": {"match": ["export the weights"], "pass": ["what are weights?"]},
                }
            ],
        },
        "approval": {
            "schema": 1,
            "ttl": "5m",
            "hold": "20s",
            "rules": [
                {
                    "id": "wire-transfer",
                    "title": "Transfer of money",
                    "action": "hold",
                    "match": r"\bwire\b.{0,40}\bmoney\b",
                    "tests": {"match": ["wire the money"], "pass": ["money is tight"]},
                }
            ],
        },
        "masker": {
            "schema": 1,
            "recognizers": [
                {
                    "id": "email",
                    "match": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}",
                    "replace": "[EMAIL]",
                    "tests": {"match": ["jane.doe@example.com"], "pass": ["jane at example"]},
                },
                {
                    "id": "payment-card",
                    "match": r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])",
                    "validate": "luhn",
                    "replace": "[CARD]",
                    "tests": {"match": ["4111 1111 1111 1111"], "pass": ["4111 1111 1111 1112"]},
                },
                {
                    "id": "phone",
                    "match": r"(?<![\w+])\+\d(?:[ -]?\d){7,14}(?![\w-])",
                    "validate": "phone",
                    "replace": "[PHONE]",
                    "tests": {"match": ["+44 20 7946 0958"], "pass": ["+1 2"]},
                },
                {
                    "id": "iban",
                    "match": r"(?<![\w-])[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,30}(?![\w-])",
                    "validate": "iban",
                    "replace": "[IBAN]",
                    "tests": {
                        "match": ["GB82 WEST 1234 5698 7654 32"],
                        "pass": ["GB00 WEST 1234 5698 7654 32"],
                    },
                },
            ],
            "profiles": {
                "default": {"answer": ["email", "payment-card", "phone", "iban"], "prompt": []},
                "cleared": {"answer": [], "prompt": []},
            },
        },
        "credentials": {
            "schema": 1,
            "upstreams": [
                {
                    "id": "model",
                    "address": upstream.removeprefix("http://"),
                    "header": "Authorization",
                    "value": f"Bearer ${{file:{key_file}}}",
                }
            ],
        },
        "recorder": {"schema": 1, "directory": "recordings", "prompts": "exact"},
    }
