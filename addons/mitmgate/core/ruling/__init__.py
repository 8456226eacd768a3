"""Rules of commands.yaml and approval.yaml, ready to judge: patterns, parameters, addresses."""

from mitmgate.core.ruling.compiler import compile
from mitmgate.core.ruling.ruling import Asked, Ruling

__all__ = ["Asked", "Ruling", "compile"]
