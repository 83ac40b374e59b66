"""Which live visibility map pages are a version of ours."""

from pageserver.verify.anatomy import PageKind
from pageserver.verify.explain import explain
from pageserver.verify.visibility import (
    copied_map_matches,
    visibility_bits,
    visibility_blocks,
    visibility_matches,
)
from tests.unit.verify.pages import changed, flipped, visibility


def test_visibility_bits_are_those_of_some_version() -> None:
    before = visibility((0, 3), (1, 3), (2, 3))
    middle = visibility((0, 3), (1, 0), (2, 3))
    after = visibility((0, 0), (1, 0), (2, 3))

    assert visibility_matches(before, [before])
    assert visibility_matches(middle, [before, middle, after])
    assert visibility_matches(middle, [before, after])
    assert visibility_matches(visibility((0, 0), (1, 3), (2, 3)), [before, middle, after])
    assert not visibility_matches(middle, [before])
    assert not visibility_matches(visibility((0, 3), (1, 3)), [before, middle, after])
    assert not visibility_matches(visibility((0, 1), (1, 3), (2, 3)), [before, middle, after])


def test_a_visibility_map_page_has_the_header_of_some_version() -> None:
    version = visibility((0, 3))

    assert not visibility_matches(visibility((0, 3), lsn=99), [version])
    assert visibility_matches(changed(version, 8, b"\x12\x34"), [version])
    assert not visibility_matches(flipped(version, 10), [version])


def test_heap_blocks_of_a_visibility_difference() -> None:
    one, other = visibility((4, 3), (6, 1)), visibility((4, 3), (5, 2), (7, 3))

    assert visibility_blocks(one, other, 0) == [5, 6, 7]
    assert visibility_blocks(one, other, 2) == [2 * 32672 + block for block in (5, 6, 7)]


def test_bits_of_a_heap_block() -> None:
    page = visibility((4, 3), (5, 2), (7, 1))

    assert [visibility_bits(page, 32672 + block) for block in (4, 5, 6, 7)] == [3, 2, 0, 1]


def test_a_visibility_difference_is_told_by_heap_block() -> None:
    fields = explain(visibility((5, 1)), visibility((5, 3)), 25, kind=PageKind.VM, blkno=1)

    assert [str(field) for field in fields] == ["heap block 32677: live visible, ours visible, frozen"]


def test_a_map_that_was_logged_without_its_bits_may_lack_them() -> None:
    live = visibility((0, 3), (1, 3), (2, 1), lsn=300)

    assert copied_map_matches(live, [visibility((1, 3), lsn=200)], [200, 300])
    assert copied_map_matches(live, [visibility((1, 2), lsn=300)], [300])
    assert not copied_map_matches(live, [visibility((1, 3), lsn=200)], [200])
    assert not copied_map_matches(live, [visibility((3, 1), lsn=300)], [300])
    assert not copied_map_matches(live, [visibility((2, 3), lsn=300)], [300])
    assert not copied_map_matches(live, [flipped(visibility(lsn=300), 10)], [300])
    assert not visibility_matches(live, [visibility((1, 3), lsn=300)])
