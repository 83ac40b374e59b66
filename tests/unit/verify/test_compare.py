"""What of two pages is a difference, what has a name, and that nothing else is excused."""

import struct

import pytest

from pageserver.verify.anatomy import PageKind, page_lsn
from pageserver.verify.compare import compare, never_logged
from pageserver.verify.excuse import Excuse
from tests.unit.verify.pages import (
    PAGE_BYTES,
    SEQUENCE_SPECIAL,
    XMAX_COMMITTED,
    XMAX_INVALID,
    XMIN_COMMITTED,
    XMIN_FROZEN,
    brin_special,
    btree_special,
    changed,
    flipped,
    gin_special,
    gist_special,
    hash_special,
    heap_tuple,
    index_tuple,
    page,
    sequence_tuple,
    spgist_special,
    visibility,
)

HEAP = page([heap_tuple(), heap_tuple(ctid=(0, 2), data=b"abc")])
FIRST = PAGE_BYTES - 40  # Where the first heap tuple starts.
BTREE = page([index_tuple(), index_tuple(offset=8)], special=btree_special())

PAGES = {
    PageKind.HEAP: HEAP,
    PageKind.BTREE: BTREE,
    PageKind.HASH: page([index_tuple()], special=hash_special()),
    PageKind.GIN: page([index_tuple()], special=gin_special()),
    PageKind.GIST: page([index_tuple()], special=gist_special()),
    PageKind.SPGIST: page([index_tuple()], special=spgist_special()),
    PageKind.BRIN: page([bytes(16)], special=brin_special()),
    PageKind.SEQUENCE: page([sequence_tuple(5, 3)], special=SEQUENCE_SPECIAL),
    PageKind.GENERIC: page([b"anything"], special=bytes(8)),
    PageKind.VM: visibility((0, 3), (5, 1)),
}


def excuses(live: bytes, ours: bytes, kind: PageKind, blkno: int = 1) -> set[str]:
    """Names for the difference of two pages that count as the same."""
    found = compare(live, ours, kind=kind, blkno=blkno)
    assert found.is_same, f"differ at {found.first_different}"
    return {excuse.name.lower() for excuse in found.excuses}


def first_different(live: bytes, ours: bytes, kind: PageKind, blkno: int = 1) -> int | None:
    found = compare(live, ours, kind=kind, blkno=blkno)
    assert not found.is_same
    return found.first_different


@pytest.mark.parametrize("kind", PageKind)
def test_a_page_is_the_same_as_itself(kind: PageKind) -> None:
    assert excuses(PAGES[kind], PAGES[kind], kind) == set()


SEEN = (*range(8, 320), *range(7900, PAGE_BYTES))


def hole(lower: int, upper: int) -> dict[str, set[int]]:
    return {"HOLE": {at for at in SEEN if lower <= at < upper}}


HEADER = {"CHECKSUM": {8, 9}}
HINTS = HEADER | {"FREE_LINES": {10}, "PAGE_FULL": {10}, "ALL_VISIBLE": {10}, "PRUNE_XID": {20, 21, 22, 23}}
EXCUSED = {
    PageKind.HEAP: HINTS
    | hole(32, 8120)
    | {
        "COMMAND_ID": {*range(8160, 8164), *range(8128, 8132), 8172, 8140},
        "HINT_BITS": {8173, 8141},
        "XMAX_BITS": {8172, 8173, 8140, 8141},
        "PADDING": {8189, 8190, 8191, 8147, 8148, 8149, 8150, 8151},
    },
    PageKind.BTREE: HINTS
    | hole(32, 8144)
    | {
        "KILLED_ITEM": {26, 30},
        "INDEX_GARBAGE": {8188},
        "BTREE_SPLIT_END": {8188},
        "BTREE_CYCLE_ID": {8190, 8191},
    },
    PageKind.HASH: HINTS | hole(28, 8160) | {"KILLED_ITEM": {26}, "INDEX_GARBAGE": {8188}},
    PageKind.GIN: HINTS | hole(28, 8168),
    PageKind.GIST: HINTS
    | hole(28, 8160)
    | {
        "KILLED_ITEM": {26},
        "GIST_NSN": set(range(8176, 8184)),
        "GIST_TUPLES_DELETED": {8188},
        "GIST_FOLLOW_RIGHT": {8188},
        "INDEX_GARBAGE": {8188},
    },
    PageKind.SPGIST: HINTS | hole(28, 8168),
    PageKind.BRIN: HINTS | hole(28, 8168) | {"BRIN_EVACUATE": {8188}},
    PageKind.SEQUENCE: HEADER | hole(28, 8136) | {"SEQUENCE_AHEAD": set(range(8168, 8177))},
    PageKind.GENERIC: HEADER | hole(28, 8176),
    PageKind.VM: HEADER,
}


@pytest.mark.parametrize("kind", PageKind)
def test_every_flipped_bit_is_found_or_has_a_name(kind: PageKind) -> None:
    live = PAGES[kind]
    named: dict[str, set[int]] = {}

    for offset in SEEN:
        for bit in (1, 2, 4, 8, 16, 32, 64, 128):
            found = compare(live, flipped(live, offset, bit), kind=kind, blkno=1)
            if found.first_different is None:
                (excuse,) = found.excuses
                named.setdefault(excuse.name, set()).add(offset)
            else:
                assert not found.excuses

    assert named == EXCUSED[kind]


@pytest.mark.parametrize("kind", PageKind)
def test_another_lsn_alone_is_left_to_the_records_of_the_page(kind: PageKind) -> None:
    live = PAGES[kind]
    found = compare(live, flipped(live, 4), kind=kind, blkno=1)

    assert not found.is_same
    assert found.first_different is None
    assert (found.live_lsn, found.ours_lsn) == (0x1_0000_0100, 0x1_0000_0101)


def test_the_first_different_byte_is_behind_what_is_excused() -> None:
    ours = flipped(flipped(HEAP, 8), 8188)  # The checksum, and the last byte of the first row.

    assert first_different(HEAP, ours, PageKind.HEAP) == 8188


def test_a_frozen_tuple_differs_from_one_that_is_not() -> None:
    frozen = page([heap_tuple(infomask=XMIN_FROZEN | XMAX_INVALID)])
    committed = page([heap_tuple(infomask=XMIN_COMMITTED | XMAX_INVALID)])

    assert first_different(frozen, committed, PageKind.HEAP) == FIRST + 21


def test_only_xmax_hints_of_a_frozen_tuple_are_hints() -> None:
    live = page([heap_tuple(infomask=XMIN_FROZEN | XMAX_INVALID)])
    hinted = page([heap_tuple(infomask=XMIN_FROZEN | XMAX_COMMITTED)])
    locked = page([heap_tuple(infomask=XMIN_FROZEN | XMAX_INVALID | 0x40)])

    assert excuses(live, hinted, PageKind.HEAP) == {"hint_bits"}
    assert first_different(live, locked, PageKind.HEAP) == FIRST + 20


def test_a_speculative_token_stands_for_the_tuple_itself() -> None:
    live = page([heap_tuple(ctid=(77, 0xFFFE))])
    itself = page([heap_tuple(ctid=(9, 1))])
    elsewhere = page([heap_tuple(ctid=(9, 2))])

    assert excuses(live, itself, PageKind.HEAP, blkno=9) == {"speculative_token"}
    assert first_different(live, elsewhere, PageKind.HEAP, blkno=9) is not None


def test_an_unused_line_pointer_differs_from_a_used_one() -> None:
    unused = changed(HEAP, 24, bytes(4))

    assert first_different(HEAP, unused, PageKind.HEAP) == 24


def test_a_dropped_insert_is_found() -> None:
    before = page([heap_tuple()], lsn=page_lsn(HEAP))

    assert first_different(HEAP, before, PageKind.HEAP) == 12


def test_line_pointers_of_an_inner_btree_page_are_compared() -> None:
    inner = page([index_tuple()], special=btree_special(flags=0, level=1))

    assert first_different(inner, flipped(inner, 26), PageKind.BTREE) == 26


def test_the_content_of_a_freed_page_means_nothing_if_both_are_freed() -> None:
    freed = page([index_tuple()], special=hash_special(flags=0))
    other = page([index_tuple(1), index_tuple(2)], special=hash_special(flags=0))
    deleted = page([index_tuple()], special=gin_special(flags=4))
    rest = page([index_tuple(1), index_tuple(2)], special=gin_special(flags=4))

    assert excuses(freed, other, PageKind.HASH) == {"hash_unused_page"}
    assert excuses(deleted, rest, PageKind.GIN) == {"gin_deleted_page"}
    assert first_different(freed, page([index_tuple()], special=hash_special()), PageKind.HASH) is not None
    assert first_different(deleted, page([index_tuple()], special=gin_special()), PageKind.GIN) is not None


def test_the_cache_of_the_spgist_metapage_is_masked_there_alone() -> None:
    content = struct.pack("<I", 0xBA0BABEE) + bytes(64)
    meta = changed(page(special=spgist_special(flags=1)), 24, content)
    meta = changed(meta, 12, struct.pack("<H", 92))
    ours = changed(meta, 30, b"cached")

    assert excuses(meta, ours, PageKind.SPGIST, blkno=0) == {"spgist_last_used"}
    assert first_different(meta, ours, PageKind.SPGIST, blkno=1) == 30
    assert first_different(meta, flipped(meta, 24), PageKind.SPGIST, blkno=0) == 24


def test_the_map_of_a_brin_index_is_compared_in_full() -> None:
    revmap = page(special=brin_special(page_type=0xF092))

    assert first_different(revmap, flipped(revmap, 4000), PageKind.BRIN) == 4000


@pytest.mark.parametrize(
    ("increment", "live", "ours", "is_same"),
    [
        (1, (5, 3), (8, 0), True),
        (1, (5, 3), (5, 0), True),
        (1, (5, 3), (4, 0), False),
        (-1, (5, 3), (2, 0), True),
        (-1, (5, 3), (8, 0), False),
        (None, (5, 3), (8, 0), True),
        (None, (5, 3), (2, 0), True),
        (None, (5, 3), (35, 0), True),
        (None, (5, 3), (9, 0), False),
        (None, (5, 0), (8, 0), False),
        (None, (-(2**63), 32), (2**63 - 1, 0), False),
    ],
)
def test_a_sequence_may_be_logged_ahead_in_its_own_direction(
    increment: int | None, live: tuple[int, int], ours: tuple[int, int], is_same: bool
) -> None:
    one = page([sequence_tuple(*live)], special=SEQUENCE_SPECIAL)
    other = page([sequence_tuple(*ours, is_called=True)], special=SEQUENCE_SPECIAL)
    found = compare(one, other, kind=PageKind.SEQUENCE, blkno=0, increment=increment)

    assert found.is_same is is_same
    assert found.first_different == (None if is_same else 8160)
    assert found.excuses == (frozenset({Excuse.SEQUENCE_AHEAD}) if is_same else frozenset())


EMPTY = page(lsn=0)


@pytest.mark.parametrize("one", [bytes(PAGE_BYTES), EMPTY])
@pytest.mark.parametrize("other", [bytes(PAGE_BYTES), EMPTY])
def test_pages_that_were_never_logged_are_the_same(one: bytes, other: bytes) -> None:
    assert excuses(one, other, PageKind.HEAP) == ({"extended_without_wal"} if one != other else set())


@pytest.mark.parametrize(
    "page_like",
    [
        page(),
        page([heap_tuple()], lsn=0),
        flipped(EMPTY, 4000),
        flipped(EMPTY, 10),
        flipped(EMPTY, 20),
        flipped(bytes(PAGE_BYTES), 8191),
        changed(EMPTY, 12, b"\x1c\0"),
        changed(EMPTY, 14, b"\xf8\x1f"),
    ],
)
def test_a_page_with_anything_on_it_was_logged(page_like: bytes) -> None:
    assert not never_logged(page_like)
    assert compare(page_like, bytes(PAGE_BYTES), kind=PageKind.HEAP, blkno=1).first_different is not None


def test_an_empty_index_page_without_lsn_was_never_logged() -> None:
    assert never_logged(page(lsn=0, special=spgist_special(flags=4)))


def test_a_page_that_lost_everything_is_different() -> None:
    assert first_different(HEAP, bytes(PAGE_BYTES), PageKind.HEAP) is not None
    assert first_different(bytes(PAGE_BYTES), HEAP, PageKind.HEAP) is not None


def test_a_page_with_impossible_bounds_is_compared_as_it_is() -> None:
    broken = changed(HEAP, 12, b"\xff\xff")

    assert excuses(broken, broken, PageKind.HEAP) == set()
    assert first_different(broken, flipped(broken, 5000), PageKind.HEAP) == 5000


def test_the_kind_of_a_page_is_told_from_its_bytes() -> None:
    for kind, made in PAGES.items():
        if kind is PageKind.VM:
            continue
        blkno = 0 if kind is PageKind.SEQUENCE else 1
        named = compare(made, flipped(made, 8170), kind=kind, blkno=blkno)
        assert compare(made, flipped(made, 8170), kind=None, blkno=blkno) == named
