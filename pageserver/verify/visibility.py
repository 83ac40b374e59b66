"""Compares pages of the visibility map: two bits a heap block, changed without an LSN."""

from collections.abc import Callable, Collection, Sequence

from pageserver.verify.anatomy import HEADER_BYTES, PAGE_BYTES, differing, page_lsn

_BLOCKS_PER_BYTE = 4
_BLOCKS_PER_PAGE = (PAGE_BYTES - HEADER_BYTES) * _BLOCKS_PER_BYTE


def visibility_matches(live: bytes, versions: Sequence[bytes]) -> bool:
    """Whether a live visibility map page is what the log makes of it, somewhere in a range of it.

    Heap records clear bits before they are inserted into the WAL and without moving the page's LSN, and
    those of different heap blocks in no order. The bits of one heap block change in order, under the lock
    of that block. So the two bits of each heap block must be those of some version, and the header that of
    some version.

    Args:
        live: the page of the live server.
        versions: ours as of each LSN in the range that changed the page, and at its start.
    """
    if not any(_header(live) == _header(version) for version in versions):
        return False
    return _each_block(live, versions, lambda mine, theirs: mine == theirs)


def copied_map_matches(live: bytes, versions: Sequence[bytes], lsns: Collection[int]) -> bool:
    """The same for a page that CREATE DATABASE copied, and logged without its bits.

    Redo has the bits that were set since, and of those no heap block has any that the live page lacks.
    Clearing a bit moves the LSN where it was set, so that the live page has the LSN of any of the records.

    Args:
        live: the page of the live server.
        versions: as above.
        lsns: ends of the records of the page since it was copied, that one included.

    Source:
        PostgreSQL 18 ``src/backend/storage/buffer/bufmgr.c``, ``RelationCopyStorageUsingBuffer``: it logs
        every page as one with a hole, which is the whole body of a visibility map.
    """
    if page_lsn(live) not in lsns or not any(_header(live)[8:] == _header(one)[8:] for one in versions):
        return False
    return _each_block(live, versions, lambda mine, theirs: mine & theirs == theirs)


def _each_block(live: bytes, versions: Sequence[bytes], matches: Callable[[int, int], bool]) -> bool:
    """Whether each pair of bits that differs somewhere matches that of some version."""
    places = {at for version in versions for at in differing(live, version) if at >= HEADER_BYTES}
    return all(
        any(matches(live[at] & bits, version[at] & bits) for version in versions)
        for at in places
        for bits in (0x03, 0x0C, 0x30, 0xC0)
    )


def visibility_blocks(live: bytes, ours: bytes, blkno: int) -> list[int]:
    """Heap blocks that two versions of a visibility map page tell different things of."""
    first = blkno * _BLOCKS_PER_PAGE
    return [
        first + (at - HEADER_BYTES) * _BLOCKS_PER_BYTE + pair
        for at in differing(live, ours)
        if at >= HEADER_BYTES
        for pair in range(_BLOCKS_PER_BYTE)
        if (live[at] ^ ours[at]) >> 2 * pair & 3
    ]


def visibility_bits(page: bytes, block: int) -> int:
    """1 for all-visible, 2 for all-frozen, of a heap block that the page covers."""
    byte, pair = divmod(block % _BLOCKS_PER_PAGE, _BLOCKS_PER_BYTE)
    return page[HEADER_BYTES + byte] >> 2 * pair & 3


def _header(page: bytes) -> bytes:
    return page[:8] + page[10:HEADER_BYTES]
