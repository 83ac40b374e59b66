"""WAL of the simulation: records with a length, a link to the one before and a checksum."""

import struct
import zlib
from random import Random

from walproxy.quorum.errors import MessageRefused
from walproxy.quorum.state import Cluster
from walproxy.wire.lsn import Lsn

SEGMENT = 4096
CLUSTER = Cluster(system_id=7, segment_size=SEGMENT, major=18)
START = Lsn(SEGMENT)

_HEADER = struct.Struct("!HQI")


def record(lsn: int, prev: int, rng: Random) -> bytes:
    """A record of 16 to 315 bytes that only fits at `lsn`, after the one at `prev`.

    None reaches over the end of a segment: each segment begins with a whole record.
    """
    size = _HEADER.size + rng.choice((2, 10, 40, rng.randrange(2, 286)))
    room = SEGMENT - lsn % SEGMENT
    if room - size < _HEADER.size + 2:
        size = room
    body = rng.randbytes(size - _HEADER.size)
    return _HEADER.pack(size, prev, _crc(lsn, prev, body)) + body


def _crc(lsn: int, prev: int, body: bytes) -> int:
    return zlib.crc32(struct.pack("!QQ", lsn, prev) + body)


class ToyScanner:
    """The `RecordScanner` of the simulation."""

    def __init__(self, start_lsn: int, prev_lsn: int) -> None:
        self.record_end_lsn = start_lsn
        self.last_record_lsn = prev_lsn
        self._rest = b""

    def feed(self, wal: bytes) -> None:
        why = self.feed_to_end(wal)
        if why:
            raise MessageRefused("wal is damaged", at=self.record_end_lsn, why=why)

    def feed_to_end(self, wal: bytes) -> str:
        """Why the bytes stop being records; empty if they do not."""
        rest = self._rest + wal
        at = 0
        why = ""
        while len(rest) - at >= _HEADER.size:
            size, prev, crc = _HEADER.unpack_from(rest, at)
            if size <= _HEADER.size or (self.last_record_lsn and prev != self.last_record_lsn):
                why = "bad header"
                break
            if len(rest) - at < size:
                break
            lsn = self.record_end_lsn
            if crc != _crc(lsn, prev, rest[at + _HEADER.size : at + size]):
                why = "bad checksum"
                break
            self.last_record_lsn, self.record_end_lsn = lsn, lsn + size
            at += size
        self._rest = rest[at:]
        return why


def make_scanner(start_lsn: Lsn, *, prev_lsn: Lsn, cluster: Cluster) -> ToyScanner:
    assert cluster == CLUSTER
    return ToyScanner(start_lsn, prev_lsn)
