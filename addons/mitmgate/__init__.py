"""An identity-aware gateway for self-hosted models, as mitmproxy addons."""

__version__ = "0.1.0"
