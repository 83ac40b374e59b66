"""One WAL segment file, as its first bytes describe it."""

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from walproxy.inspect import packed
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.wire.lsn import Lsn

PAGE_SIZE: Final = 8192
MAGICS: Final = {0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
_LONG: Final = struct.Struct("<HHIQIxxxxQII")
_SHORT: Final = struct.Struct("<HHIQ")
_IS_LONG: Final = 0x0002
_SEGMENT_SIZES: Final = frozenset(1 << n for n in range(20, 31))


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment file.

    Source:
        ``XLogLongPageHeaderData`` in ``src/include/access/xlog_internal.h``.
    """

    path: Path
    major: int
    tli: int
    start_lsn: Lsn
    system_id: int
    segment_size: int
    size: int
    is_packed: bool = False

    @property
    def is_partial(self) -> bool:
        named = parse_name(self.path.name)
        return named is not None and named[2]

    def open(self) -> BinaryIO:
        """The bytes of the segment, whatever it is packed with."""
        return io.BytesIO(packed.unpack(self.path)) if self.is_packed else self.path.open("rb")

    @property
    def end_lsn(self) -> Lsn:
        """Where the next segment starts."""
        return Lsn(self.start_lsn + self.segment_size)

    def page_is_wal(self, offset: int, header: bytes) -> bool:
        """Whether the page at ``offset``, of which this is the start, was written as part of this segment."""
        if len(header) < _SHORT.size:
            return False
        magic, _, _, page_addr = _SHORT.unpack_from(header)
        return MAGICS.get(magic) == self.major and page_addr == self.start_lsn + offset


def parse_name(name: str) -> tuple[int, str, bool] | None:
    """Timeline, the sixteen digits of the position, and whether it is partial; None: no segment's name."""
    match = packed.NAME.fullmatch(name)
    return None if match is None else (int(match[2], 16), match[3], match[4] is not None)


def open_segment(path: Path) -> Segment:
    """Read a segment file's header.

    Raises:
        TargetUnusable: it cannot be read, or neither its name nor its bytes say that it is a segment.
        WalDamaged: by its name it is one, but its header is not that of this segment.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_LONG.size)
        size = path.stat().st_size
        if is_packed := packed.is_packed(head):
            unpacked = packed.unpack(path)
            head, size = unpacked[: _LONG.size], len(unpacked)
    except OSError as error:
        raise TargetUnusable("cannot read the file", file=path, reason=error.strerror) from error
    named = parse_name(path.name)
    unfit = TargetUnusable if named is None else WalDamaged
    if len(head) < _LONG.size:
        raise unfit("no wal segment: too short", file=path, size=size)
    magic, info, tli, page_addr, _, system_id, segment_size, block_size = _LONG.unpack(head)
    if magic not in MAGICS or not info & _IS_LONG:
        facts = {"magic": f"{magic:04X}", "info": f"{info:04X}"}
        raise unfit("no wal segment of postgres 15 to 18", file=path, **facts)
    if block_size != PAGE_SIZE or segment_size not in _SEGMENT_SIZES:
        facts = {"segment_size": segment_size, "block_size": block_size}
        raise unfit("no wal segment: impossible sizes", file=path, **facts)
    if page_addr % segment_size or (named and _start_by_name(named[1], segment_size) != page_addr):
        raise unfit("the file holds other wal than its name says", file=path, holds=Lsn(page_addr))
    return Segment(path, MAGICS[magic], tli, Lsn(page_addr), system_id, segment_size, size, is_packed)


def _start_by_name(digits: str, segment_size: int) -> int:
    return (int(digits[:8], 16) * (0x1_0000_0000 // segment_size) + int(digits[8:], 16)) * segment_size
