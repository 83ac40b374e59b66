"""What stands at which byte of a page, by the kind of page."""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum

PAGE_BYTES = 8192
HEADER_BYTES = 24
_CHUNK_BYTES = 64

# Last two bytes of a page, by which Postgres' own tools tell index pages apart.
_CYCLE_ID_MAX = 0xFF7F
_HASH_PAGE_ID = 0xFF80
_GIST_PAGE_ID = 0xFF81
_SPGIST_PAGE_ID = 0xFF82
_BRIN_PAGE_TYPES = frozenset({0xF091, 0xF092, 0xF093})
_SEQUENCE_MAGIC = 0x1717


class PageKind(StrEnum):
    """Who lays out a page; the values are what `walcore._native.mask_page` takes."""

    HEAP = "heap"
    BTREE = "btree"
    HASH = "hash"
    GIN = "gin"
    GIST = "gist"
    SPGIST = "spgist"
    BRIN = "brin"
    SEQUENCE = "sequence"
    GENERIC = "generic"
    VM = "vm"


class Part(Enum):
    """The parts of a page that some mask treats differently from its neighbours."""

    LSN = "pd_lsn"
    CHECKSUM = "pd_checksum"
    FLAGS = "pd_flags"
    LOWER = "pd_lower"
    UPPER = "pd_upper"
    SPECIAL_START = "pd_special"
    SIZE_VERSION = "pd_pagesize_version"
    PRUNE_XID = "pd_prune_xid"
    LINE_POINTER = "line pointer"
    HOLE = "hole"
    XMIN = "t_xmin"
    XMAX = "t_xmax"
    COMMAND_ID = "t_field3"
    CTID = "t_ctid"
    INFOMASK2 = "t_infomask2"
    INFOMASK = "t_infomask"
    HOFF = "t_hoff"
    INDEX_TID = "t_tid"
    INDEX_INFO = "t_info"
    DATA = "data"
    PADDING = "padding"
    SPECIAL = "special"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Place:
    """A run of bytes of a page: ``start <= offset < end``.

    ``item`` is the number of the line pointer it belongs to, counted from 1; 0 for none.
    """

    part: Part
    start: int
    end: int
    item: int = 0

    def __str__(self) -> str:
        return f"{self.part.value} of item {self.item}" if self.item else self.part.value


@dataclass(frozen=True, slots=True)
class LinePointer:
    """One entry of the array behind the page header (``ItemIdData``)."""

    number: int
    offset: int
    flags: int
    length: int

    @property
    def is_used(self) -> bool:
        return self.flags != 0

    @property
    def has_storage(self) -> bool:
        return self.length != 0

    def __str__(self) -> str:
        state = ("unused", "normal", "redirect", "dead")[self.flags]
        return f"{state} offset={self.offset} length={self.length}"


_HEADER = (
    Place(Part.LSN, 0, 8),
    Place(Part.CHECKSUM, 8, 10),
    Place(Part.FLAGS, 10, 12),
    Place(Part.LOWER, 12, 14),
    Place(Part.UPPER, 14, 16),
    Place(Part.SPECIAL_START, 16, 18),
    Place(Part.SIZE_VERSION, 18, 20),
    Place(Part.PRUNE_XID, 20, 24),
)
_HEADER_AT = tuple(place for place in _HEADER for _ in range(place.start, place.end))

# Parts of a tuple up to the byte given, from its start.
_HEAP_TUPLE = (
    (4, Part.XMIN),
    (8, Part.XMAX),
    (12, Part.COMMAND_ID),
    (18, Part.CTID),
    (20, Part.INFOMASK2),
    (22, Part.INFOMASK),
    (23, Part.HOFF),
)
_INDEX_TUPLE = ((6, Part.INDEX_TID), (8, Part.INDEX_INFO))
_TUPLES = {
    PageKind.HEAP: _HEAP_TUPLE,
    PageKind.SEQUENCE: _HEAP_TUPLE,
    PageKind.BTREE: _INDEX_TUPLE,
    PageKind.HASH: _INDEX_TUPLE,
    PageKind.GIST: _INDEX_TUPLE,
    PageKind.GIN: _INDEX_TUPLE,
}


def page_lsn(page: bytes) -> int:
    """``pd_lsn``: the end of the last record that changed the page; 0 if none did."""
    high, low = struct.unpack_from("<II", page, 0)
    return int(high << 32 | low)


def is_new(page: bytes) -> bool:
    """Whether the page was never initialised (``PageIsNew``)."""
    return page[14:16] == b"\0\0"


class Anatomy:
    """The layout of one page. Made of any 8192 bytes: what does not add up is `Part.CONTENT`."""

    def __init__(self, page: bytes, kind: PageKind) -> None:
        self.kind = kind
        self.lower: int
        self.upper: int
        self.special: int
        self.lower, self.upper, self.special = struct.unpack_from("<HHH", page, 12)
        self.is_sound = HEADER_BYTES <= self.lower <= self.upper <= self.special <= PAGE_BYTES
        self._page = page
        self._stored: list[LinePointer] | None = None
        self._starts: list[int] = []

    def line_pointers(self) -> list[LinePointer]:
        """All line pointers; none if the page has no array of them."""
        if not self.is_sound or not self._has_items():
            return []
        return [
            LinePointer(number, word & 0x7FFF, word >> 15 & 3, word >> 17)
            for number, word in enumerate(self._words(), start=1)
        ]

    def normal_tuples(self) -> list[int]:
        """Where the tuples of a heap page start that their line pointers call normal."""
        if not self.is_sound:
            return []
        return [
            word & 0x7FFF
            for word in self._words()
            if word >> 15 & 3 == 1 and word >> 17 >= 23 and (word & 0x7FFF) + 23 <= PAGE_BYTES
        ]

    def _words(self) -> tuple[int, ...]:
        count = (self.lower - HEADER_BYTES) // 4
        return struct.unpack_from(f"<{count}I", self._page, HEADER_BYTES)

    def place(self, offset: int) -> Place:
        """What stands at the byte at `offset`."""
        if offset < HEADER_BYTES:
            return _HEADER_AT[offset]
        if not self.is_sound or self.kind is PageKind.VM:
            return Place(Part.CONTENT, HEADER_BYTES, PAGE_BYTES)
        if offset >= self.special:
            return Place(Part.SPECIAL, self.special, PAGE_BYTES)
        if self.lower <= offset < self.upper:
            return Place(Part.HOLE, self.lower, self.upper)
        if not self._has_items():
            return Place(Part.CONTENT, HEADER_BYTES, self.special)
        if offset < self.lower:
            number = (offset - HEADER_BYTES) // 4
            start = HEADER_BYTES + 4 * number
            return Place(Part.LINE_POINTER, start, min(start + 4, self.lower), number + 1)
        return self._place_in_item(offset)

    def item_at(self, offset: int) -> LinePointer | None:
        """The line pointer of the tuple, padding included, that holds the byte at `offset`."""
        if self._stored is None:
            self._stored = sorted(
                (item for item in self.line_pointers() if item.has_storage), key=lambda item: item.offset
            )
            self._starts = [item.offset for item in self._stored]
        index = bisect_right(self._starts, offset) - 1
        if index < 0:
            return None
        item = self._stored[index]
        return item if offset < item.offset + -(-item.length // 8) * 8 else None

    def _has_items(self) -> bool:
        """Whether the bytes from the header to ``pd_lower`` are line pointers."""
        match self.kind:
            case PageKind.HEAP | PageKind.SEQUENCE | PageKind.GIST:
                return True
            case PageKind.BTREE:
                flags = self.special_u16(12)
                return not flags & 0x08 and not (flags & 0x04 and flags & 0x100)  # META; DELETED with xid
            case PageKind.HASH:
                return bool(self.special_u16(12) & 0x03)  # overflow or bucket
            case PageKind.GIN:
                return not self.special_u16(6) & 0x0D  # data, deleted, meta
            case PageKind.SPGIST:
                return not self.special_u16(0) & 0x01  # meta
            case PageKind.BRIN:
                return self.is_brin(0xF093)
            case PageKind.GENERIC | PageKind.VM:
                return False

    def special_u16(self, at: int) -> int:
        """Two bytes of the special space; 0 if there are none."""
        start = self.special + at
        if not self.is_sound or start + 2 > PAGE_BYTES:
            return 0
        return int.from_bytes(self._page[start : start + 2], "little")

    def is_brin(self, page_type: int) -> bool:
        """Whether this is a BRIN page of one type: 0xF091 meta, 0xF092 revmap, 0xF093 regular."""
        return self._page[-2:] == page_type.to_bytes(2, "little")

    def _place_in_item(self, offset: int) -> Place:
        item = self.item_at(offset)
        if item is None:
            return Place(Part.CONTENT, self.upper, self.special)
        at = offset - item.offset
        if at >= item.length:
            return Place(
                Part.PADDING, item.offset + item.length, item.offset + -(-item.length // 8) * 8, item.number
            )
        start = 0
        for end, part in _TUPLES.get(self.kind, ()):
            if at < end:
                return Place(part, item.offset + start, item.offset + end, item.number)
            start = end
        return Place(Part.DATA, item.offset + start, item.offset + item.length, item.number)


def detect_kind(page: bytes, *, blkno: int, is_vm: bool = False) -> PageKind:
    """Tell the kind of a page from its bytes, where no catalog can be asked.

    A page that was never initialised, and one of an access method that is not built in, is
    `PageKind.GENERIC`: compared in full but for its hole.
    """
    if is_vm:
        return PageKind.VM
    special = int.from_bytes(page[16:18], "little")
    size, tag = PAGE_BYTES - special, int.from_bytes(page[-2:], "little")
    if is_new(page):
        return PageKind.GENERIC
    if size == 0:
        return PageKind.HEAP
    if size == 16:
        tags = {_HASH_PAGE_ID: PageKind.HASH, _GIST_PAGE_ID: PageKind.GIST}
        return tags.get(tag, PageKind.BTREE if tag <= _CYCLE_ID_MAX else PageKind.GENERIC)
    if size != 8:
        return PageKind.GENERIC
    if tag == _SPGIST_PAGE_ID:
        return PageKind.SPGIST
    if tag in _BRIN_PAGE_TYPES:
        return PageKind.BRIN
    if blkno == 0 and int.from_bytes(page[special:], "little") == _SEQUENCE_MAGIC:
        return PageKind.SEQUENCE
    return PageKind.GIN if tag < 0x0100 else PageKind.GENERIC


def differing(one: bytes, other: bytes) -> Iterator[int]:
    """Offsets of the bytes that differ, ascending."""
    if one == other:
        return
    for start in range(0, len(one), _CHUNK_BYTES):
        mine, theirs = one[start : start + _CHUNK_BYTES], other[start : start + _CHUNK_BYTES]
        if mine != theirs:
            yield from (
                at for at, pair in enumerate(zip(mine, theirs, strict=True), start) if pair[0] != pair[1]
            )
