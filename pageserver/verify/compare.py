"""Compares a page of the live server with ours: every byte and the LSN, but for what has a name."""

import struct
from dataclasses import dataclass

from pageserver.verify.anatomy import (
    HEADER_BYTES,
    PAGE_BYTES,
    Anatomy,
    PageKind,
    Part,
    detect_kind,
    differing,
    is_new,
    page_lsn,
)
from pageserver.verify.excuse import Excuse, excuses_for, infomask_excuses
from walcore._native import mask_page

_SPGIST_CACHE = slice(28, 92)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two versions of one page differ.

    ``first_different`` is the first byte, ``pd_lsn`` aside, that differs without an excuse. The two LSNs
    are judged by whoever knows the records of the page.
    """

    live_lsn: int
    ours_lsn: int
    first_different: int | None = None
    excuses: frozenset[Excuse] = frozenset()

    @property
    def is_same(self) -> bool:
        return self.first_different is None and self.live_lsn == self.ours_lsn


def compare(
    live: bytes, ours: bytes, *, kind: PageKind | None, blkno: int, increment: int | None = None
) -> Comparison:
    """Compare two pages as of the same LSN.

    Args:
        live: 8192 bytes of the live server.
        ours: 8192 bytes of ours.
        kind: None to tell it from the pages.
        blkno: block number within the fork.
        increment: of a sequence; None if it is not known.
    """
    if kind is None:
        kind = detect_kind(ours if is_new(live) else live, blkno=blkno)
    lsns = page_lsn(live), page_lsn(ours)
    if live == ours:
        return Comparison(*lsns)
    if is_new(live) or is_new(ours):
        if never_logged(live) and never_logged(ours):
            return Comparison(*lsns, excuses=frozenset({Excuse.EXTENDED_WITHOUT_WAL}))
        return Comparison(*lsns, first_different=next(differing(live[8:], ours[8:]), -8) + 8)
    different = next(differing(_masked(live, kind, blkno), _masked(ours, kind, blkno)), None)
    if different is not None:
        return Comparison(*lsns, first_different=different)
    return _excused(live, ours, kind, blkno, increment)


def never_logged(page: bytes) -> bool:
    """Whether no record ever spoke of a page: zeros, or initialised, empty and without LSN."""
    if not any(page):
        return True
    _checksum, flags, lower, upper, special = struct.unpack_from("<5H", page, 8)
    is_empty = lower == HEADER_BYTES and lower < upper == special <= PAGE_BYTES and not flags
    return is_empty and not any(page[:8]) and not any(page[20:upper])


def _excused(live: bytes, ours: bytes, kind: PageKind, blkno: int, increment: int | None) -> Comparison:
    """Name every difference that the masks hide; one without a name is a difference."""
    lsns = page_lsn(live), page_lsn(ours)
    anatomy = Anatomy(live, kind)
    names: frozenset[Excuse] = frozenset()
    if kind is PageKind.HEAP:
        ours, names = _with_hints_of(live, ours, anatomy)
    seen_to = 8
    for offset in differing(live, ours):
        if offset < seen_to:
            continue
        place = anatomy.place(offset)
        seen_to = place.end
        found = excuses_for(place, live, ours, anatomy, blkno)
        if found is None:
            return Comparison(*lsns, first_different=offset)
        names |= found
        if kind is PageKind.SEQUENCE and place.part is Part.DATA:
            last_value_at = place.start + 1
            if not _sequence_is_ahead(live, ours, last_value_at, increment):
                return Comparison(*lsns, first_different=last_value_at)
    return Comparison(*lsns, excuses=names)


def _with_hints_of(live: bytes, ours: bytes, anatomy: Anatomy) -> tuple[bytes, frozenset[Excuse]]:
    """Our page with the live page's hint bits, and their names.

    Nearly every heap page differs in them, and in every tuple: one pass over the tuples is many times faster
    than finding out where each of those bytes stands.
    """
    names: frozenset[Excuse] = frozenset()
    hinted = bytearray(ours)
    for start in anatomy.normal_tuples():
        field = slice(start + 20, start + 22)
        mine, theirs = live[field], ours[field]
        if mine != theirs:
            found = infomask_excuses(int.from_bytes(mine, "little"), int.from_bytes(theirs, "little"))
            if found is not None:
                names |= found
                hinted[field] = mine
    return bytes(hinted), names


def _sequence_is_ahead(live: bytes, ours: bytes, at: int, increment: int | None) -> bool:
    """Whether the logged value is at or ahead of the one given out last, in the direction the sequence goes.

    Without a catalog the direction is not known, but the distance is: one increment for each of the
    ``log_cnt`` values that were logged and not given out.
    """
    live_value, unused, _is_called = struct.unpack_from("<qq?", live, at)
    (ours_value,) = struct.unpack_from("<q", ours, at)
    ahead = ours_value - live_value
    if increment is None:
        return bool(ahead % unused == 0 if unused > 0 else ahead == 0)
    return bool(ahead >= 0 if increment > 0 else ahead <= 0)


def _masked(page: bytes, kind: PageKind, blkno: int) -> bytes:
    """A page without what WAL does not decide.

    Postgres' masks with corrections of ours: the content of a visibility map stays (to Postgres it is a
    hole); what sequences and SP-GiST's metapage keep ahead or cached goes.
    """
    if kind is PageKind.VM:
        return bytes(8) + b"\0\0" + page[10:]
    masked = mask_page(page, access_method=kind.value, blkno=blkno)
    if kind is PageKind.SPGIST and blkno == 0:
        return _without(masked, _SPGIST_CACHE)
    if kind is PageKind.SEQUENCE:
        for item in Anatomy(page, kind).line_pointers()[:1]:
            return _without(masked, slice(item.offset + 24, item.offset + 41))
    return masked


def _without(page: bytes, span: slice) -> bytes:
    return page[: span.start] + bytes(span.stop - span.start) + page[span.stop :]
