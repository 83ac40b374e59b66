"""A node's disk: what it would read now, and what would be left after a loss of power."""

from random import Random

from tests.sim.toywal import SEGMENT, ToyScanner
from walproxy.quorum.state import ControlState, decode_control, encode_control
from walproxy.wire.lsn import Lsn, segment_start

_SECTOR = 64


class SimDisk:
    """WAL that is only appended to and cut, a control file that is replaced as a whole, history files.

    The faults it claims: of unsynced writes any subset of sectors is lost, and some sectors are written in
    part. Synced bytes stay.

    Invariant: start <= agreed_end; synced_end <= end.
    """

    def __init__(self) -> None:
        self.wipe()

    def wipe(self) -> None:
        """An empty disk in its place."""
        self.control: bytes | None = None
        self.histories: dict[int, bytes] = {}
        self.slots: dict[str, int] = {}
        self.start = 0
        self.live = bytearray()
        self.synced_end = 0
        # Up to there the checker found the synced bytes to be those that are committed.
        self.agreed_end = 0

    @property
    def end(self) -> int:
        return self.start + len(self.live)

    def save(self, state: ControlState) -> None:
        self.control = encode_control(state)

    def load(self) -> ControlState | None:
        return None if self.control is None else decode_control(self.control)

    def create(self, start_lsn: int) -> None:
        self.start, self.live = start_lsn, bytearray()
        self.synced_end = self.agreed_end = start_lsn

    def write(self, lsn: int, wal: bytes) -> None:
        assert lsn == self.end, f"write at {lsn}, disk ends at {self.end}"
        self.live += wal

    def sync(self) -> None:
        self.synced_end = self.end

    def truncate(self, lsn: int) -> None:
        assert self.start <= lsn <= self.end
        del self.live[lsn - self.start :]
        self.agreed_end = min(self.agreed_end, lsn)
        self.sync()

    def remove_before(self, lsn: int) -> None:
        """Whole segments below it."""
        start = min(segment_start(lsn, SEGMENT), segment_start(self.synced_end, SEGMENT))
        if start > self.start:
            del self.live[: start - self.start]
            self.start = start
            self.agreed_end = max(self.agreed_end, start)

    def read(self, lsn: int, end: int) -> bytes:
        assert self.start <= lsn <= end <= self.end, f"read {lsn} to {end} of {self.start} to {self.end}"
        return bytes(self.live[lsn - self.start : end - self.start])

    def lose_power(self, rng: Random) -> None:
        synced = self.synced_end - self.start
        kept = self.live[:synced]
        lost_all = rng.random() < 0.3
        for at in range(synced, len(self.live), _SECTOR):
            piece = self.live[at : at + _SECTOR]
            luck = 1.0 if lost_all else rng.random()
            if luck < 0.1:
                piece = piece[: rng.randrange(len(piece))]
            if luck < 0.55:
                kept.extend(bytes(at - len(kept)))
                kept += piece
        self.live = kept
        self.sync()

    def recover(self, from_lsn: int, end_max: int) -> tuple[Lsn, Lsn]:
        """End of the whole records and start of the last one; clears what follows, and syncs."""
        scanner = ToyScanner(self.start, 0)
        scanner.feed_to_end(bytes(self.live if not end_max else self.live[: end_max - self.start]))
        assert scanner.record_end_lsn >= from_lsn, "log is damaged"
        self.truncate(scanner.record_end_lsn)
        return Lsn(scanner.record_end_lsn), Lsn(scanner.last_record_lsn)
