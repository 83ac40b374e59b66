"""A node's disk: what it would read now, and what would be left after a loss of power."""

from random import Random

from tests.sim.toywal import ToyScanner
from walproxy.quorum.state import ControlState, decode_control, encode_control
from walproxy.wire.lsn import Lsn

_SECTOR = 64


class SimDisk:
    """The faults it claims: unsynced writes are lost in any subset of sectors. Synced bytes stay."""

    def __init__(self) -> None:
        self.control: bytes | None = None
        self.start = 0
        self.live = bytearray()
        self.durable = bytearray()
        self._unsynced: list[tuple[int, bytes]] = []

    @property
    def end(self) -> int:
        return self.start + len(self.live)

    def save(self, state: ControlState) -> None:
        self.control = encode_control(state)

    def load(self) -> ControlState | None:
        return None if self.control is None else decode_control(self.control)

    def create(self, start_lsn: int) -> None:
        self.start, self.live, self.durable, self._unsynced = start_lsn, bytearray(), bytearray(), []

    def write(self, lsn: int, wal: bytes) -> None:
        assert lsn == self.end, f"write at {lsn}, disk ends at {self.end}"
        self.live += wal
        self._unsynced.append((lsn, wal))

    def sync(self) -> None:
        self.durable = bytearray(self.live)
        self._unsynced = []

    def truncate(self, lsn: int) -> None:
        assert self.start <= lsn <= self.end
        del self.live[lsn - self.start :]
        self.sync()

    def read(self, lsn: int, end: int) -> bytes:
        assert self.start <= lsn <= end <= self.end
        return bytes(self.live[lsn - self.start : end - self.start])

    def holds_durably(self, lsn: int, wal: bytes) -> bool:
        """After a loss of power these bytes would be there."""
        at = lsn - self.start
        return at >= 0 and self.durable[at : at + len(wal)] == wal

    def lose_power(self, rng: Random) -> None:
        kept = bytearray(self.durable)
        for lsn, wal in self._unsynced:
            for at in range(0, len(wal), _SECTOR):
                if rng.random() < 0.5:
                    piece = wal[at : at + _SECTOR]
                    offset = lsn - self.start + at
                    if len(kept) < offset + len(piece):
                        kept.extend(bytes(offset + len(piece) - len(kept)))
                    kept[offset : offset + len(piece)] = piece
        self.live = kept
        self.durable = bytearray(kept)
        self._unsynced = []

    def recover(self, from_lsn: int, end_max: int) -> tuple[Lsn, Lsn]:
        """End of the whole records and start of the last one; clears what follows."""
        scanner = ToyScanner(self.start, 0)
        data = bytes(self.live) if not end_max else bytes(self.live[: end_max - self.start])
        scanner.feed_to_end(data)
        assert scanner.record_end_lsn >= from_lsn, "log is damaged"
        self.truncate(scanner.record_end_lsn)
        return Lsn(scanner.record_end_lsn), Lsn(scanner.last_record_lsn)
