"""A difference in words: header fields, line pointer, tuple."""

from pageserver.verify.anatomy import PageKind
from pageserver.verify.explain import explain
from tests.unit.verify.pages import btree_special, changed, heap_tuple, index_tuple, page

HEAP = page([heap_tuple(), heap_tuple(xmin=701, ctid=(0, 2))])


def shown(live: bytes, ours: bytes, offset: int | None, kind: PageKind | None) -> list[str]:
    return [str(field) for field in explain(live, ours, offset, kind=kind, blkno=1)]


def test_a_tuple_header_is_decoded() -> None:
    ours = page([heap_tuple(), heap_tuple(xmin=702, xmax=9, ctid=(0, 2))])

    assert shown(HEAP, ours, 8112, PageKind.HEAP) == [
        "byte 8112 (t_xmin of item 2): live bd 02 00 00, ours be 02 00 00",
        "t_xmin: live 701, ours 702",
        "t_xmax: live 0, ours 9",
    ]


def test_header_fields_and_lsn_are_shown_but_for_the_checksum() -> None:
    ours = page([heap_tuple()], lsn=0x1_0000_0200, flags=2, checksum=77)

    assert shown(HEAP, ours, 12, None) == [
        "pd_lsn: live 1/100, ours 1/200",
        "pd_flags: live 0x0, ours 0x2",
        "pd_lower: live 32, ours 28",
        "pd_upper: live 8112, ours 8152",
        "byte 12 (pd_lower): live 20 00, ours 1c 00",
    ]


def test_a_line_pointer_is_decoded() -> None:
    ours = changed(HEAP, 28, bytes(4))

    assert shown(HEAP, ours, 28, PageKind.HEAP) == [
        "byte 28 (line pointer of item 2): live b0 9f 4a 00, ours 00 00 00 00",
        "line pointer 2: live normal offset=8112 length=37, ours unused offset=0 length=0",
    ]


def test_an_index_tuple_is_decoded() -> None:
    live, ours = (page([index_tuple(*tid)], special=btree_special()) for tid in ((3, 7), (70000, 7)))

    assert shown(live, ours, 8160, None)[-1] == "t_tid: live (3,7), ours (70000,7)"


def test_a_page_of_zeros_against_one_of_rows() -> None:
    assert shown(HEAP, bytes(8192), 12, None)[:2] == [
        "pd_lsn: live 1/100, ours 0/0",
        "pd_lower: live 32, ours 0",
    ]
    assert shown(bytes(8192), HEAP, 12, None)[-1] == "byte 12 (pd_lower): live 00 00, ours 20 00"


def test_only_the_lsn_differs() -> None:
    assert shown(HEAP, changed(HEAP, 4, b"\0\x02\0\0"), None, PageKind.HEAP) == [
        "pd_lsn: live 1/100, ours 1/200"
    ]
