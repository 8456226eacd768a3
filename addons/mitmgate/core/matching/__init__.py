"""Patterns in prompts and answers: which rules does a text break, however it is dressed up?"""

from mitmgate.core.matching.compiler import compile
from mitmgate.core.matching.matcher import INLINE, Finding, Matcher, size_of

__all__ = ["INLINE", "Finding", "Matcher", "compile", "size_of"]
