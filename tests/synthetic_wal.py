"""WAL made up on the spot: real pages, real records (XLOG_NOOP with a payload), real checksums."""

import struct
from dataclasses import dataclass, field

from walcore._native import crc32c
from walproxy.wire.lsn import Lsn, segment_start

PAGE = 8192
MAGIC = {15: 0xD110, 18: 0xD118}
_PAGE_HEADER = struct.Struct("<HHIQII")
_LONG_HEADER = struct.Struct("<QII")
_RECORD = struct.Struct("<IIQBBH")


@dataclass
class WalWriter:
    """Writes WAL from ``start_lsn`` on, which is a segment's start or where another writer stopped."""

    start_lsn: int
    segment_size: int = 1 << 20
    system_id: int = 7_000_000_000_000_000_001
    tli: int = 1
    major: int = 18
    prev_lsn: int = 0
    wal: bytearray = field(default_factory=bytearray)
    ends: list[Lsn] = field(default_factory=list)

    @property
    def end_lsn(self) -> Lsn:
        return Lsn(self.start_lsn + len(self.wal))

    def between(self, start_lsn: int, end_lsn: int) -> bytes:
        return bytes(self.wal[start_lsn - self.start_lsn : end_lsn - self.start_lsn])

    def record(self, payload: bytes = b"something") -> Lsn:
        """Append one record; gives its end."""
        head = (
            b"\xff" + bytes([len(payload)])
            if len(payload) < 256
            else b"\xfe" + struct.pack("<I", len(payload))
        )
        body = head + payload
        if self.end_lsn % PAGE == 0:
            self._page_header(0)
        start = self.end_lsn
        fixed = _RECORD.pack(24 + len(body), 0, self.prev_lsn, 0x20, 0, 0)
        rest = fixed + struct.pack("<I", crc32c(fixed, crc32c(body))) + body
        self.prev_lsn = start
        while rest:
            room = PAGE - self.end_lsn % PAGE
            if room == PAGE:
                self._page_header(len(rest))
                continue
            self.wal += rest[:room]
            rest = rest[room:]
        self.wal += bytes(-self.end_lsn % 8)
        self.ends.append(self.end_lsn)
        return self.end_lsn

    def record_up_to(self, end_lsn: int) -> Lsn:
        """Append one record that ends exactly there, on the page where the log ends now."""
        room = end_lsn - self.end_lsn - 24
        return self.record(b"e" * (room - 2 if room < 256 else room - 5))

    def fill(self, until_lsn: int, payload: bytes = b"x" * 1000) -> Lsn:
        """Append records until the log is at least that long."""
        while self.end_lsn < until_lsn:
            self.record(payload)
        return self.end_lsn

    def _page_header(self, rem_len: int) -> None:
        at = self.end_lsn
        is_long = at == segment_start(at, self.segment_size)
        info = (1 if rem_len else 0) | (2 if is_long else 0) | 4
        self.wal += _PAGE_HEADER.pack(MAGIC[self.major], info, self.tli, at, rem_len, 0)
        if is_long:
            self.wal += _LONG_HEADER.pack(self.system_id, self.segment_size, PAGE)
