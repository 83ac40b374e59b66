"""Says in words and numbers how two versions of a page differ."""

import struct
from dataclasses import dataclass

from pageserver.verify.anatomy import Anatomy, LinePointer, PageKind, Part, detect_kind, is_new, page_lsn
from pageserver.verify.visibility import visibility_bits, visibility_blocks
from walproxy.wire.lsn import Lsn

_HEADER_FIELDS = (
    "pd_checksum",
    "pd_flags",
    "pd_lower",
    "pd_upper",
    "pd_special",
    "pd_pagesize_version",
    "pd_prune_xid",
)
_SHOWN_BYTES_MAX = 16
_SHOWN_BLOCKS_MAX = 8
_VISIBILITY = ("neither", "visible", "frozen", "visible, frozen")
_INDEX_KINDS = frozenset({PageKind.BTREE, PageKind.HASH, PageKind.GIST, PageKind.GIN})


@dataclass(frozen=True, slots=True)
class Field:
    """One value that is not the same on both pages."""

    name: str
    live: str
    ours: str

    def __str__(self) -> str:
        return f"{self.name}: live {self.live}, ours {self.ours}"


def explain(
    live: bytes, ours: bytes, offset: int | None, *, kind: PageKind | None, blkno: int
) -> list[Field]:
    """Decode the first difference: header fields, then the bytes at `offset` and what they belong to."""
    if kind is None:
        kind = detect_kind(ours if is_new(live) else live, blkno=blkno)
    fields = _header(live, ours)
    if offset is None:
        return fields
    anatomy = Anatomy(ours if is_new(live) else live, kind)
    place = anatomy.place(offset)
    start = offset if place.end - place.start > _SHOWN_BYTES_MAX else place.start
    end = min(place.end, start + _SHOWN_BYTES_MAX)
    if kind is PageKind.VM:
        return fields + _visibility(live, ours, blkno)
    fields.append(Field(f"byte {offset} ({place})", live[start:end].hex(" "), ours[start:end].hex(" ")))
    number = place.item
    if not number:
        return fields
    mine, theirs = _item(live, kind, number), _item(ours, kind, number)
    if str(mine) != str(theirs):
        fields.append(Field(f"line pointer {number}", str(mine), str(theirs)))
    if place.part is not Part.LINE_POINTER:
        fields += _tuple(live, ours, mine, theirs, kind)
    return fields


def _header(live: bytes, ours: bytes) -> list[Field]:
    fields = []
    if page_lsn(live) != page_lsn(ours):
        fields.append(Field("pd_lsn", str(Lsn(page_lsn(live))), str(Lsn(page_lsn(ours)))))
    values = (struct.unpack_from("<6HI", page, 8) for page in (live, ours))
    for name, mine, theirs in zip(_HEADER_FIELDS, *values, strict=True):
        if mine != theirs and name != "pd_checksum":
            shown = (hex(mine), hex(theirs)) if name == "pd_flags" else (str(mine), str(theirs))
            fields.append(Field(name, *shown))
    return fields


def _visibility(live: bytes, ours: bytes, blkno: int) -> list[Field]:
    """The first heap blocks that the two maps tell different things of."""
    return [
        Field(f"heap block {block}", *(_VISIBILITY[visibility_bits(page, block)] for page in (live, ours)))
        for block in visibility_blocks(live, ours, blkno)[:_SHOWN_BLOCKS_MAX]
    ]


def _item(page: bytes, kind: PageKind, number: int) -> LinePointer | None:
    items = Anatomy(page, kind).line_pointers()
    return items[number - 1] if number <= len(items) else None


def _tuple(
    live: bytes, ours: bytes, mine: LinePointer | None, theirs: LinePointer | None, kind: PageKind
) -> list[Field]:
    one, other = _tuple_fields(live, mine, kind), _tuple_fields(ours, theirs, kind)
    return [Field(name, one[name], other.get(name, "none")) for name in one if one[name] != other.get(name)]


def _tuple_fields(page: bytes, item: LinePointer | None, kind: PageKind) -> dict[str, str]:
    if item is None or not item.has_storage or item.offset + item.length > len(page):
        return {}
    if kind is PageKind.HEAP and item.length >= 23:
        xmin, xmax, field3, high, low, offnum, infomask2, infomask, hoff = struct.unpack_from(
            "<3I5HB", page, item.offset
        )
        return {
            "t_xmin": str(xmin),
            "t_xmax": str(xmax),
            "t_field3": str(field3),
            "t_ctid": f"({high << 16 | low},{offnum})",
            "t_infomask2": hex(infomask2),
            "t_infomask": hex(infomask),
            "t_hoff": str(hoff),
        }
    if kind in _INDEX_KINDS and item.length >= 8:
        high, low, offnum, info = struct.unpack_from("<4H", page, item.offset)
        return {"t_tid": f"({high << 16 | low},{offnum})", "t_info": hex(info)}
    return {}
