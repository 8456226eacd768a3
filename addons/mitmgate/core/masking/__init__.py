"""Masking: recognizers from masker.yaml, applied to whole texts and, exactly alike, to streams."""

from mitmgate.core.masking.compilation import Masking, compile
from mitmgate.core.masking.masker import Hit, Masked, Masker, ProfileMaskers
from mitmgate.core.masking.model import MaskerFile, Profile, Recognizer, Tail
from mitmgate.core.masking.stream import StreamMasker

__all__ = [
    "Hit",
    "Masked",
    "Masker",
    "MaskerFile",
    "Masking",
    "Profile",
    "ProfileMaskers",
    "Recognizer",
    "StreamMasker",
    "Tail",
    "compile",
]
