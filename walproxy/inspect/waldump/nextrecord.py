"""What PostgreSQL's own reader says of a position where no record could be read."""

import struct
from typing import Final, Protocol

from walcore._native import crc32c
from walproxy.inspect.segment import MAGICS, PAGE_SIZE
from walproxy.inspect.waldump.ended import Fatal
from walproxy.inspect.waldump.words import Words
from walproxy.wire.lsn import Lsn, segment_start

_PAGE: Final = struct.Struct("<HHIQI")
_LONG: Final = struct.Struct("<QII")
_RECORD: Final = struct.Struct("<IIQBBxxI")
_SHORT_LENGTH: Final = 24
_LONG_LENGTH: Final = 40
_CONTINUES: Final = 0x01
_IS_LONG: Final = 0x02
_OVERWRITES: Final = 0x08
_ALL_FLAGS: Final = 0x0F
_RMGRS_BUILT_IN: Final = 22
_RMGRS_CUSTOM: Final = range(128, 256)


class EndReached(Exception):
    """The next record is not whole before the end asked for."""


class Refused(Exception):
    """The next record is none; the text says why, as Postgres says it."""


class Wal(Protocol):
    """Where bytes come from."""

    tli: int
    segment_size: int
    words: Words

    def name(self, lsn: int) -> str:
        """Name of a segment, for messages."""

    def read(self, lsn: int, length: int) -> bytes:
        """Bytes of one segment; fewer where its file ends. Raises Fatal."""


class NextRecord:
    """Reads one record the way PostgreSQL does, for the sake of what it says when there is none.

    Args:
        end_lsn: no byte from here on may be used; 0: any may.

    Source:
        ``XLogDecodeNextRecord`` in ``src/backend/access/transam/xlogreader.c``; ``WALDumpReadPage`` in
        ``src/bin/pg_waldump/pg_waldump.c``.
    """

    def __init__(self, wal: Wal, end_lsn: int) -> None:
        self._wal = wal
        self._end_lsn = end_lsn
        self._magic = next(magic for magic, major in MAGICS.items() if major == wal.words.major)
        self._tli = 0

    def read(self, at: int, prev: int) -> None:
        """Read the record at ``at``, which follows the one at ``prev``. Returns if there is nothing wrong with it.

        Raises:
            EndReached, Refused, Fatal
        """
        if prev:
            self._tli = self._page_tli(prev - prev % PAGE_SIZE)
        page, offset = at - at % PAGE_SIZE, at % PAGE_SIZE
        data = self._page(page, min(offset + _RECORD.size, PAGE_SIZE))
        header_length = _header_length(data)
        start = at + header_length if offset == 0 else at
        if start - page < header_length:
            found = (
                "" if self._wal.words.major == 15 else f": expected at least {header_length}, got {offset}"
            )
            raise Refused(f"invalid record offset at {Lsn(at)}{found}")
        if _flags(data) & _CONTINUES and start - page == header_length:
            raise Refused(f"contrecord is requested by {Lsn(start)}")
        total = int.from_bytes(data[start - page : start - page + 4], "little")
        room = PAGE_SIZE - start % PAGE_SIZE
        if room >= _RECORD.size:
            data = self._page(page, min(start - page + _RECORD.size, PAGE_SIZE))
            self._check_header(start, data[start - page :], prev)
        elif total < _RECORD.size:
            raise Refused(self._too_short(start, total))
        if total > room:
            self._assemble(start, page, total, prev)
        else:
            data = self._page(page, min(start - page + total, PAGE_SIZE))
            self._check_sum(start, data[start - page : start - page + total])

    def valid_page(self, page: int) -> None:
        """Read a whole page. Raises EndReached, Refused, Fatal."""
        self._page(page, PAGE_SIZE)

    def _assemble(self, start: int, page: int, total: int, prev: int) -> None:
        """Gather a record of several pages."""
        gathered = self._page(page, PAGE_SIZE)[start - page :]
        checked = len(gathered) >= _RECORD.size
        while len(gathered) < total:
            page += PAGE_SIZE
            data = self._page(page, _SHORT_LENGTH)
            left = _PAGE.unpack_from(data)[4]
            if _flags(data) & _OVERWRITES:
                return self.read(page, prev)
            if not _flags(data) & _CONTINUES:
                raise Refused(f"there is no contrecord flag at {Lsn(start)}")
            if left == 0 or total != left + len(gathered):
                expected = total - len(gathered)
                raise Refused(f"invalid contrecord length {left} (expected {expected}) at {Lsn(start)}")
            self._page(page, min(total - len(gathered) + _SHORT_LENGTH, PAGE_SIZE))
            header_length = _header_length(data)
            length = min(left, PAGE_SIZE - header_length)
            data = self._page(page, header_length + length)
            gathered += data[header_length : header_length + length]
            if not checked:
                self._check_header(start, gathered, prev)
                checked = True
        return self._check_sum(start, gathered)

    def _check_header(self, start: int, data: bytes, prev: int) -> None:
        total, _, found_prev, _, rmid, _ = _RECORD.unpack_from(data)
        if total < _RECORD.size:
            raise Refused(self._too_short(start, total))
        if rmid >= _RMGRS_BUILT_IN and rmid not in _RMGRS_CUSTOM:
            raise Refused(f"invalid resource manager ID {rmid} at {Lsn(start)}")
        if found_prev != prev if prev else found_prev >= start:
            raise Refused(f"record with incorrect prev-link {Lsn(found_prev)} at {Lsn(start)}")

    def _check_sum(self, start: int, record: bytes) -> None:
        stored = _RECORD.unpack_from(record)[5]
        if crc32c(record[:20], crc32c(record[_RECORD.size :])) != stored:
            raise Refused(f"incorrect resource manager data checksum in record at {Lsn(start)}")

    def _too_short(self, start: int, total: int) -> str:
        wanted = self._wal.words.length_wanted
        return f"invalid record length at {Lsn(start)}: {wanted} {_RECORD.size}, got {total}"

    def _page(self, page: int, needed: int) -> bytes:
        """The start of a page, ``needed`` bytes at least, its header checked."""
        data = self._fetch(page, max(needed, _SHORT_LENGTH))
        if len(data) < _header_length(data):
            data = self._fetch(page, _header_length(data))
        self._check_page(page, data)
        return data

    def _fetch(self, page: int, needed: int) -> bytes:
        length = PAGE_SIZE
        if self._end_lsn and page + PAGE_SIZE > self._end_lsn:
            if page + needed > self._end_lsn:
                raise EndReached
            length = self._end_lsn - page
        data = self._wal.read(page, length)
        if len(data) < length:
            wal, at = self._wal, page % self._wal.segment_size + len(data)
            name = wal.words.quoted(wal.name(page))
            missing = length - len(data)
            raise Fatal(f"could not read from file {name}, offset {at}: read 0 of {missing}")
        return data

    def _page_tli(self, page: int) -> int:
        head = self._wal.read(page, _SHORT_LENGTH)
        return int(_PAGE.unpack_from(head)[2]) if len(head) == _SHORT_LENGTH else 0

    def _check_page(self, page: int, data: bytes) -> None:
        """Source: ``XLogReaderValidatePageHeader``."""
        magic, flags, tli, address, _ = _PAGE.unpack_from(data)
        wal = self._wal
        offset = page % wal.segment_size
        where = wal.words.page_at(wal.name(page), Lsn(page), offset)
        if magic != self._magic:
            raise Refused(f"invalid magic number {magic:04X} {where}")
        if flags & ~_ALL_FLAGS:
            raise Refused(f"invalid info bits {flags:04X} {where}")
        if flags & _IS_LONG:
            _, segment_size, page_size = _LONG.unpack_from(data, _SHORT_LENGTH)
            other = "WAL file is from different database system: incorrect"
            if segment_size != wal.segment_size:
                raise Refused(f"{other} segment size in page header")
            if page_size != PAGE_SIZE:
                raise Refused(f"{other} XLOG_BLCKSZ in page header")
        elif page == segment_start(page, wal.segment_size):
            raise Refused(f"invalid info bits {flags:04X} {where}")
        if address != page:
            raise Refused(f"unexpected pageaddr {Lsn(address)} {where}")
        if tli < self._tli:
            raise Refused(f"out-of-sequence timeline ID {tli} (after {self._tli}) {where}")
        self._tli = tli


def _flags(page: bytes) -> int:
    return int.from_bytes(page[2:4], "little")


def _header_length(page: bytes) -> int:
    return _LONG_LENGTH if _flags(page) & _IS_LONG else _SHORT_LENGTH
