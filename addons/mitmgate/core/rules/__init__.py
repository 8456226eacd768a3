"""Rule files: YAML in, frozen and checked models out, every error with its file and line."""

from mitmgate.core.rules.loader import Loaded, Problem, RuleError, digest_of, load
from mitmgate.core.rules.model import (
    Duration,
    FilePath,
    Id,
    Listed,
    Model,
    Reference,
    RuleFile,
    Size,
)

__all__ = [
    "Duration",
    "FilePath",
    "Id",
    "Listed",
    "Loaded",
    "Model",
    "Problem",
    "Reference",
    "RuleError",
    "RuleFile",
    "Size",
    "digest_of",
    "load",
]
