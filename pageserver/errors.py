"""What can go wrong in the pageserver, and with what code the program then ends.

PageserverError
├── ConfigInvalid        usage or configuration
├── BootstrapFailed      no first image yet: start again
├── Refused              another cluster's data
├── DataDamaged          our own files are not what we wrote
├── Poisoned             a write or sync of ours failed
├── StreamBroken         this connection to a node is of no use: try the next node
│   └── WalMissing       the node no longer has, or does not yet have, the WAL we need
├── ReadRefused          this read cannot be answered
│   ├── LsnNotReached    not ingested so far
│   └── LsnTooOld        below what the timeline can rebuild
└── NodeUnreachable      `status` got no answer
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How the program ended."""

    STOPPED = 0
    USAGE = 1
    RUNTIME = 2
    DAMAGED = 3
    POISONED = 4
    REFUSED = 5


class PageserverError(Exception):
    """Base of the errors that leave the pageserver."""

    exit_code = ExitCode.RUNTIME
    hint: str | None = None

    def __init__(self, what: str, **facts: object) -> None:
        super().__init__(" ".join([what, *(f"{name}={value}" for name, value in facts.items())]))
        self.facts = facts


class ConfigInvalid(PageserverError):
    """The configuration cannot be used. Correct it."""

    exit_code = ExitCode.USAGE


class BootstrapFailed(PageserverError):
    """The base backup did not come through. Start the program again: it begins anew."""


class Refused(PageserverError):
    """What we were pointed at belongs to another cluster. Correct the connection strings."""

    exit_code = ExitCode.REFUSED


class DataDamaged(PageserverError):
    """Our own files fail their checksums. Empty the data directory and bootstrap again."""

    exit_code = ExitCode.DAMAGED
    hint = "empty data_dir and start again: the pageserver then takes a new base backup from the primary"


class Poisoned(PageserverError):
    """A write or a sync failed, and what is on disk is unknown. End; recover by reading what is there."""

    exit_code = ExitCode.POISONED
    hint = "see to the disk and start again: the pageserver goes on from what is on it"


class StreamBroken(PageserverError):
    """The stream of WAL cannot go on. Try the next node."""


class WalMissing(StreamBroken):
    """The node does not have the WAL we need next. Try the next node; tell the operator."""


class ReadRefused(PageserverError):
    """The read cannot be answered. Tell the client."""


class LsnNotReached(ReadRefused):
    """The timeline has not ingested this far. Retry later."""


class LsnTooOld(ReadRefused):
    """The timeline cannot rebuild anything this old. Do not retry."""


class NodeUnreachable(PageserverError):
    """The pageserver asked does not answer."""
