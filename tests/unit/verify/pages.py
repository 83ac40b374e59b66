"""Hand-made pages."""

import struct
from collections.abc import Sequence

PAGE_BYTES = 8192

HEAP_TUPLE_BYTES = 40
XMIN_COMMITTED, XMIN_INVALID, XMAX_INVALID, XMAX_COMMITTED = 0x0100, 0x0200, 0x0800, 0x0400
XMIN_FROZEN = XMIN_COMMITTED | XMIN_INVALID


def page(
    items: Sequence[bytes] = (),
    *,
    special: bytes = b"",
    lsn: int = 0x1_0000_0100,
    flags: int = 0,
    prune_xid: int = 0,
    checksum: int = 0,
) -> bytes:
    """A page as Postgres lays it out: items from the end of the page downwards."""
    made = bytearray(PAGE_BYTES)
    upper = bound = PAGE_BYTES - len(special)
    pointers = []
    for item in items:
        upper -= -(-len(item) // 8) * 8
        made[upper : upper + len(item)] = item
        pointers.append(upper | 1 << 15 | len(item) << 17)
    lower = 24 + 4 * len(pointers)
    struct.pack_into(
        "<IIHHHHHHI",
        made,
        0,
        lsn >> 32,
        lsn & 0xFFFF_FFFF,
        checksum,
        flags,
        lower,
        upper,
        bound,
        0x2004,
        prune_xid,
    )
    struct.pack_into(f"<{len(pointers)}I", made, 24, *pointers)
    made[bound:] = special
    return bytes(made)


def heap_tuple(
    *,
    xmin: int = 700,
    xmax: int = 0,
    cid: int = 0,
    ctid: tuple[int, int] = (0, 1),
    infomask2: int = 2,
    infomask: int = XMAX_INVALID,
    data: bytes = b"hand-made row",
) -> bytes:
    block, offset = ctid
    header = struct.pack(
        "<3I5HB", xmin, xmax, cid, block >> 16, block & 0xFFFF, offset, infomask2, infomask, 24
    )
    return header + b"\0" + data


def index_tuple(block: int = 3, offset: int = 7, key: bytes = b"\x2a" + bytes(7)) -> bytes:
    return struct.pack("<4H", block >> 16, block & 0xFFFF, offset, 8 + len(key)) + key


def sequence_tuple(last_value: int, log_cnt: int, *, is_called: bool = True) -> bytes:
    values = struct.pack("<qq?", last_value, log_cnt, is_called)
    return heap_tuple(xmin=2, infomask=XMIN_FROZEN | XMAX_INVALID, infomask2=3, data=values)


def btree_special(*, flags: int = 1, cycle_id: int = 0, level: int = 0) -> bytes:
    return struct.pack("<IIIHH", 0, 0, level, flags, cycle_id)


def hash_special(*, flags: int = 2) -> bytes:
    return struct.pack("<IIIHH", 0xFFFF_FFFF, 0xFFFF_FFFF, 0, flags, 0xFF80)


def gist_special(*, flags: int = 1, nsn: int = 0) -> bytes:
    return struct.pack("<QIHH", nsn, 0xFFFF_FFFF, flags, 0xFF81)


def gin_special(*, flags: int = 2) -> bytes:
    return struct.pack("<IHH", 0xFFFF_FFFF, 0, flags)


def spgist_special(*, flags: int = 0) -> bytes:
    return struct.pack("<HHHH", flags, 0, 0, 0xFF82)


def brin_special(*, page_type: int = 0xF093, flags: int = 0) -> bytes:
    return struct.pack("<HHHH", 0, 0, flags, page_type)


SEQUENCE_SPECIAL = struct.pack("<II", 0x1717, 0)


def changed(old: bytes, offset: int, new: bytes) -> bytes:
    """A copy with other bytes from an offset on."""
    return old[:offset] + new + old[offset + len(new) :]


def flipped(old: bytes, offset: int, bits: int = 1) -> bytes:
    """A copy with bits of one byte inverted."""
    return changed(old, offset, bytes([old[offset] ^ bits]))


def visibility(*blocks: tuple[int, int], lsn: int = 0x1_0000_0100) -> bytes:
    """A visibility map page with (heap block, bits)."""
    made = bytearray(page(lsn=lsn))
    for block, bits in blocks:
        made[24 + block // 4] |= bits << 2 * (block % 4)
    return bytes(made)
