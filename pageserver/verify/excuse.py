"""The differences that WAL does not decide, each by name."""

from enum import Enum
from functools import lru_cache
from typing import TypeAlias

from pageserver.verify.anatomy import Anatomy, PageKind, Part, Place


class Excuse(Enum):
    """Why a byte of the live page may differ from redo's."""

    CHECKSUM = "pd_checksum is computed when a page is written out"
    PRUNE_XID = "pd_prune_xid is a hint"
    PAGE_FULL = "PD_PAGE_FULL is a hint"
    FREE_LINES = "PD_HAS_FREE_LINES is a hint"
    ALL_VISIBLE = "PD_ALL_VISIBLE is masked by Postgres; the visibility map is compared instead"
    HOLE = "the bytes between pd_lower and pd_upper mean nothing"
    PADDING = "the bytes that align a tuple mean nothing"
    HINT_BITS = "the commit state of xmin and xmax in a tuple is a hint"
    XMAX_BITS = "the other transaction bits of a tuple are masked by Postgres while xmin is not frozen"
    COMMAND_ID = "command ids are not logged"
    SPECULATIVE_TOKEN = "the token of a speculative insertion is not logged"  # noqa: S105  # Not a password.
    KILLED_ITEM = "line pointers of index entries are marked dead without WAL"
    INDEX_GARBAGE = "the flag that an index page has dead entries is a hint"
    BTREE_SPLIT_END = "BTP_SPLIT_END is not redone"
    BTREE_CYCLE_ID = "the vacuum cycle id of a btree page is not redone"
    HASH_UNUSED_PAGE = "the content of a freed hash page means nothing"
    GIN_DELETED_PAGE = "the content of a deleted GIN page means nothing"
    GIST_NSN = "the node sequence number of a GiST page is an LSN of its own"
    GIST_FOLLOW_RIGHT = "F_FOLLOW_RIGHT of a GiST page is set after its record"
    GIST_TUPLES_DELETED = "F_TUPLES_DELETED of a GiST page is read by nobody, and newer minors do not set it"
    BRIN_EVACUATE = "BRIN_EVACUATE_PAGE is not logged"
    SPGIST_LAST_USED = "lastUsedPages of the SP-GiST metapage is a cache"
    SEQUENCE_AHEAD = "a sequence logs values ahead of those it has given out"
    VM_LATER_VERSION = "visibility bits change before their record: equal to a version no newer than the read"
    VM_COPIED_WITHOUT_BITS = (
        "CREATE DATABASE logs a visibility map without its bits: redo has those set since"
    )
    CLOG_LATER_VERSION = "transactions ended while it was read: each status is one it had meanwhile"
    EXTENDED_WITHOUT_WAL = "a page added without WAL: zeros, or initialised, empty and without LSN"
    WRITTEN_BEFORE_LOGGED = "15 and 16 write pages of sorted GiST builds and init forks before logging them"
    HINT_WITHOUT_IMAGE = "an FPI_FOR_HINT without image moved the live page's LSN only"
    HINT_NOT_STAMPED = "an FPI_FOR_HINT met a page already dirty and left the live page's LSN alone"


# Bits of a little-endian field, and what a difference in them is called.
_Bits: TypeAlias = tuple[tuple[int, Excuse], ...]

_FLAGS: _Bits = ((0x1, Excuse.FREE_LINES), (0x2, Excuse.PAGE_FULL), (0x4, Excuse.ALL_VISIBLE))
_INFOMASK: _Bits = ((0x0F00, Excuse.HINT_BITS), (0x0020, Excuse.COMMAND_ID), (0xF0D0, Excuse.XMAX_BITS))
_INFOMASK_FROZEN: _Bits = ((0x0C00, Excuse.HINT_BITS),)
_LINE_POINTER_FLAGS = 3 << 15
_XMIN_FROZEN = 0x0300

_SPECIAL: dict[PageKind, _Bits] = {
    PageKind.BTREE: (
        (0x40 << 96, Excuse.INDEX_GARBAGE),
        (0x20 << 96, Excuse.BTREE_SPLIT_END),
        (0xFFFF << 112, Excuse.BTREE_CYCLE_ID),
    ),
    PageKind.HASH: ((0x80 << 96, Excuse.INDEX_GARBAGE),),
    PageKind.GIST: (
        (2**64 - 1, Excuse.GIST_NSN),
        (0x04 << 96, Excuse.GIST_TUPLES_DELETED),
        (0x08 << 96, Excuse.GIST_FOLLOW_RIGHT),
        (0x10 << 96, Excuse.INDEX_GARBAGE),
    ),
    PageKind.BRIN: ((0x01 << 32, Excuse.BRIN_EVACUATE),),
}
_WITHOUT_HINTS = frozenset({PageKind.SEQUENCE, PageKind.GENERIC, PageKind.VM})


def excuses_for(
    place: Place, live: bytes, ours: bytes, anatomy: Anatomy, blkno: int
) -> frozenset[Excuse] | None:
    """Name what differs in one place; None if a difference there is none that WAL leaves open.

    A second opinion beside the native masks: it goes by position and bit, they clear. `anatomy` is the live
    page's.

    Source:
        PostgreSQL 18 ``src/backend/access/common/bufmask.c`` and the mask function of each resource manager.
    """
    kind = anatomy.kind
    if place.part is Part.CHECKSUM:
        return frozenset({Excuse.CHECKSUM})
    if (freed := _freed(anatomy)) and (place.start >= 24 or place.part in (Part.LOWER, Part.UPPER)):
        return frozenset({freed})
    differs = _number(place, live) ^ _number(place, ours)
    match place.part:
        case Part.PRUNE_XID if kind not in _WITHOUT_HINTS:
            return frozenset({Excuse.PRUNE_XID})
        case Part.FLAGS if kind not in _WITHOUT_HINTS:
            return _named(differs, _FLAGS)
        case Part.HOLE if _hole_is_masked(anatomy):
            return frozenset({Excuse.HOLE})
        case Part.SPECIAL:
            return _named(differs, _SPECIAL.get(kind, ()))
        case Part.LINE_POINTER if _items_are_killed(anatomy):
            were_used = all(_number(place, page) & _LINE_POINTER_FLAGS for page in (live, ours))
            return _named(differs, ((_LINE_POINTER_FLAGS, Excuse.KILLED_ITEM),)) if were_used else None
        case Part.CONTENT if kind is PageKind.SPGIST and blkno == 0:
            return _within(place, live, ours, range(28, 92), Excuse.SPGIST_LAST_USED)
        case Part.DATA if kind is PageKind.SEQUENCE:
            values = range(place.start + 1, place.start + 18)
            return _within(place, live, ours, values, Excuse.SEQUENCE_AHEAD)
        case _ if kind is PageKind.HEAP:
            return _in_heap_tuple(place, live, ours, anatomy, blkno)
        case _:
            return None


@lru_cache(maxsize=4096)
def infomask_excuses(mine: int, theirs: int) -> frozenset[Excuse] | None:
    """Name the difference of two values of ``t_infomask``; None if it is not one that WAL leaves open."""
    frozen = {field & _XMIN_FROZEN == _XMIN_FROZEN for field in (mine, theirs)}
    if len(frozen) == 2:
        return None
    return _named(mine ^ theirs, _INFOMASK_FROZEN if frozen == {True} else _INFOMASK)


def _in_heap_tuple(
    place: Place, live: bytes, ours: bytes, anatomy: Anatomy, blkno: int
) -> frozenset[Excuse] | None:
    if place.part is Part.PADDING:
        return frozenset({Excuse.PADDING})
    item = anatomy.item_at(place.start)
    if item is None or item.flags != 1:
        return None
    mine, theirs = _number(place, live), _number(place, ours)
    match place.part:
        case Part.COMMAND_ID:
            return frozenset({Excuse.COMMAND_ID})
        case Part.INFOMASK:
            return infomask_excuses(mine, theirs)
        case Part.CTID:
            itself = (blkno >> 16 | (blkno & 0xFFFF) << 16) | item.number << 32
            tids = {itself if field >> 32 == 0xFFFE else field for field in (mine, theirs)}
            return frozenset({Excuse.SPECULATIVE_TOKEN}) if len(tids) == 1 else None
        case _:
            return None


def _freed(anatomy: Anatomy) -> Excuse | None:
    """What the whole content is excused by on a page that was given back."""
    if not anatomy.is_sound:
        return None
    if anatomy.kind is PageKind.HASH and not anatomy.special_u16(12) & 0x0F:
        return Excuse.HASH_UNUSED_PAGE
    if anatomy.kind is PageKind.GIN and anatomy.special_u16(6) & 0x04:
        return Excuse.GIN_DELETED_PAGE
    return None


def _hole_is_masked(anatomy: Anatomy) -> bool:
    match anatomy.kind:
        case PageKind.GIN:
            return anatomy.lower > 24
        case PageKind.BRIN:
            return anatomy.is_brin(0xF093) or (anatomy.is_brin(0xF091) and anatomy.lower > 24)
        case _:
            return True


def _items_are_killed(anatomy: Anatomy) -> bool:
    """Whether index scans mark line pointers of this page dead."""
    match anatomy.kind:
        case PageKind.BTREE | PageKind.GIST:
            return bool(anatomy.special_u16(12) & 0x01)
        case PageKind.HASH:
            return bool(anatomy.special_u16(12) & 0x03)
        case _:
            return False


def _number(place: Place, page: bytes) -> int:
    return int.from_bytes(page[place.start : place.end], "little")


def _named(differs: int, bits: _Bits) -> frozenset[Excuse] | None:
    """Names for the set bits of `differs`; None if one of them has none."""
    names = set()
    for mask, excuse in bits:
        if differs & mask:
            names.add(excuse)
            differs &= ~mask
    return frozenset(names) if not differs else None


def _within(
    place: Place, live: bytes, ours: bytes, allowed: range, excuse: Excuse
) -> frozenset[Excuse] | None:
    before, after = slice(place.start, allowed.start), slice(allowed.stop, place.end)
    is_outside = live[before] != ours[before] or live[after] != ours[after]
    return None if is_outside else frozenset({excuse})
