"""Positions in the WAL, and the names of the files that hold them."""

import re

from walproxy.wire.errors import MalformedInput

_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_FILE = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")


class Lsn(int):
    """A position in the WAL, in bytes since the start of the log.

    Prints as Postgres prints it (``16/B374D848``). Zero is never a valid
    position. A range of WAL is always half open: ``start_lsn <= x < end_lsn``.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFF_FFFF:X}"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


INVALID_LSN = Lsn(0)


def parse_lsn(text: str) -> Lsn:
    """Read the form that Postgres prints.

    Raises:
        MalformedInput: any other form.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise MalformedInput("not an lsn", text=text)
    return Lsn(int(match[1], 16) << 32 | int(match[2], 16))


def segment_start(lsn: int, segment_size: int) -> Lsn:
    """Start of the segment that holds the byte at ``lsn``."""
    return Lsn(lsn - lsn % segment_size)


def segment_name(tli: int, lsn: int, segment_size: int) -> str:
    """Name of the file that holds the byte at ``lsn``.

    Source:
        ``XLogFileName`` in ``src/include/access/xlog_internal.h``.
    """
    per_id = 0x1_0000_0000 // segment_size
    number = lsn // segment_size
    return f"{tli:08X}{number // per_id:08X}{number % per_id:08X}"


def parse_segment_name(name: str, segment_size: int) -> tuple[int, Lsn]:
    """Timeline and start LSN of a segment file's name.

    Raises:
        MalformedInput: not a segment's name, or not of this segment size.
    """
    match = _FILE.fullmatch(name)
    per_id = 0x1_0000_0000 // segment_size
    if match is None or int(match[3], 16) >= per_id:
        raise MalformedInput("not a wal segment name", name=name, segment_size=segment_size)
    return int(match[1], 16), Lsn((int(match[2], 16) * per_id + int(match[3], 16)) * segment_size)
