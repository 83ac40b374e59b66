"""WalRange: an Append whose WAL is still in the log."""

from dataclasses import dataclass

from walproxy.quorum.messages import Append
from walproxy.wire.lsn import Lsn


@dataclass(frozen=True, slots=True)
class WalRange:
    """An Append whose WAL, [start_lsn, end_lsn) of our own log, the driver puts in."""

    generation: int
    term: int
    tli: int
    start_lsn: Lsn
    end_lsn: Lsn
    commit_lsn: Lsn
    horizon_lsn: Lsn

    def with_wal(self, wal: bytes) -> Append:
        return Append(
            self.generation, self.term, self.tli, self.start_lsn, self.commit_lsn, self.horizon_lsn, wal
        )
