"""The ledger: flow bytes in, recordings with a hash-chained index out; to verify and to search.

A recorder needs an `Archive`: journal, send, record, settle. What it is made of is here for tests
and for tools that read what was written.
"""

from mitmgate.core.ledger.archive import Archive
from mitmgate.core.ledger.entry import VERDICTS, Entry, Query
from mitmgate.core.ledger.errors import RecordingError, Stopped
from mitmgate.core.ledger.file import RecorderFile
from mitmgate.core.ledger.inspection import Finding
from mitmgate.core.ledger.journal import Journal, Leftover
from mitmgate.core.ledger.opening import Identities, IdentityNeeded, opened, opened_flow
from mitmgate.core.ledger.query import without_secrets
from mitmgate.core.ledger.recording import Recorded, Recording
from mitmgate.core.ledger.recovery import Recovery, recorded, recover
from mitmgate.core.ledger.removal import Removal
from mitmgate.core.ledger.retention import Retention, Step
from mitmgate.core.ledger.sealing import VEILED, sealed_part
from mitmgate.core.ledger.search import BadRecord, entries, flow_bytes
from mitmgate.core.ledger.signature import Signer
from mitmgate.core.ledger.slot import Slot, abandoned, claim
from mitmgate.core.ledger.verify import Report, verify

__all__ = [
    "VEILED",
    "VERDICTS",
    "Archive",
    "BadRecord",
    "Entry",
    "Finding",
    "Identities",
    "IdentityNeeded",
    "Journal",
    "Leftover",
    "Query",
    "Recorded",
    "RecorderFile",
    "Recording",
    "RecordingError",
    "Recovery",
    "Removal",
    "Report",
    "Retention",
    "Signer",
    "Slot",
    "Step",
    "Stopped",
    "abandoned",
    "claim",
    "entries",
    "flow_bytes",
    "opened",
    "opened_flow",
    "recorded",
    "recover",
    "sealed_part",
    "verify",
    "without_secrets",
]
