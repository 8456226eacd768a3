"""The ledger: flow bytes in, recordings with a hash-chained index out, and their verification.

At start a worker claims a `Slot`, makes its `Journal` and its `Recording`, calls `recover` for each
`abandoned` slot, and records the journal's leftovers. After that: journal, send, record, settle.
"""

from mitmgate.core.ledger.archive import Archive
from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.file import RecorderFile
from mitmgate.core.ledger.inspection import Finding
from mitmgate.core.ledger.journal import Journal, Leftover
from mitmgate.core.ledger.recording import Recorded, Recording
from mitmgate.core.ledger.recovery import Recovery, recorded, recover
from mitmgate.core.ledger.signature import Signer
from mitmgate.core.ledger.slot import Slot, abandoned, claim
from mitmgate.core.ledger.verify import Report, verify

__all__ = [
    "Archive",
    "Finding",
    "Journal",
    "Leftover",
    "Recorded",
    "RecorderFile",
    "Recording",
    "RecordingError",
    "Recovery",
    "Report",
    "Signer",
    "Slot",
    "abandoned",
    "claim",
    "recorded",
    "recover",
    "verify",
]
