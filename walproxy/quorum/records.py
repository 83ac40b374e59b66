"""RecordScanner: what tells the core where whole, checked records end."""

from typing import Protocol

from walproxy.quorum.state import Cluster
from walproxy.wire.lsn import Lsn


class RecordScanner(Protocol):
    """Follows a stream of WAL. The node's is the native `WalScanner`; the simulation has its own."""

    def feed(self, wal: bytes) -> None:
        """Take the next bytes.

        Raises:
            MessageRefused: they are not the WAL they should be; the scanner is of no more use.
        """

    @property
    def record_end_lsn(self) -> int:
        """End of the last whole record; where the scanner began before the first."""

    @property
    def last_record_lsn(self) -> int:
        """Start of that record; 0 before the first."""


class MakeScanner(Protocol):
    """Makes a scanner for WAL from `start_lsn` on.

    `start_lsn` is a record end; `prev_lsn` the start of the record before it, 0 if not known.
    """

    def __call__(self, start_lsn: Lsn, *, prev_lsn: Lsn, cluster: Cluster) -> RecordScanner: ...
