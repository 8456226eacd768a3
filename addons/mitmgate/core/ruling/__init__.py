"""Rules of commands.yaml and approval.yaml, ready to judge: patterns, parameters, addresses."""

from mitmgate.core.ruling.compiler import compile
from mitmgate.core.ruling.ruling import Asked, Ruling, asked_of, unpacked

__all__ = ["Asked", "Ruling", "asked_of", "compile", "unpacked"]
