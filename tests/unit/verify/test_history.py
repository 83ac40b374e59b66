"""Which records of a page explain that only its LSN differs."""

import pytest

from pageserver.verify.anatomy import PageKind
from pageserver.verify.excuse import Excuse
from pageserver.verify.history import HINT_RECORD, PageRecord, explain_lsn, explain_unstamped

INSERT = "Heap/INSERT"


def hint(end_lsn: int, *, has_image: bool, names_page: bool = True) -> PageRecord:
    return PageRecord(end_lsn, HINT_RECORD, names_page, has_image)


@pytest.mark.parametrize(
    ("live_lsn", "ours_lsn", "records", "excuse"),
    [
        (200, 100, [hint(200, has_image=False)], Excuse.HINT_WITHOUT_IMAGE),
        (100, 200, [hint(200, has_image=True)], Excuse.HINT_NOT_STAMPED),
        (100, 200, [hint(150, has_image=True), hint(200, has_image=True)], Excuse.HINT_NOT_STAMPED),
        (200, 100, [], None),
        (200, 100, [None], None),
        (200, 100, [hint(199, has_image=False)], None),
        (200, 100, [hint(200, has_image=False, names_page=False)], None),
        (200, 100, [PageRecord(200, INSERT, True, False)], None),
        (200, 100, [hint(200, has_image=True)], None),
        (100, 200, [], None),
        (100, 200, [PageRecord(200, INSERT, True, True)], None),
        (100, 200, [PageRecord(150, INSERT, True, False), hint(200, has_image=True)], None),
        (100, 200, [None, hint(200, has_image=True)], None),
        (100, 200, [hint(150, has_image=True)], None),
    ],
)
def test_only_hint_records_explain_another_lsn(
    live_lsn: int, ours_lsn: int, records: list[PageRecord | None], excuse: Excuse | None
) -> None:
    assert explain_lsn(live_lsn, ours_lsn, records) is excuse


IMAGE = PageRecord(200, "XLOG/FPI", True, True)


@pytest.mark.parametrize(
    ("live_lsn", "ours_lsn", "records", "is_excused"),
    [
        (1, 200, [IMAGE], True),
        (0, 200, [IMAGE], False),
        (100, 200, [IMAGE], False),
        (1, 201, [IMAGE], False),
        (1, 200, [], False),
        (1, 200, [None], False),
        (1, 200, [IMAGE, IMAGE], False),
        (1, 200, [PageRecord(200, "Gist/PAGE_UPDATE", True, True)], False),
        (1, 200, [PageRecord(200, "XLOG/FPI", True, False)], False),
        (1, 200, [PageRecord(200, "XLOG/FPI", False, True)], False),
    ],
)
def test_only_the_first_image_of_a_gist_build_explains_its_lsn(
    live_lsn: int, ours_lsn: int, records: list[PageRecord | None], is_excused: bool
) -> None:
    found = explain_unstamped(live_lsn, ours_lsn, records, kind=PageKind.GIST, fork="main")

    assert found is (Excuse.WRITTEN_BEFORE_LOGGED if is_excused else None)


def test_a_page_is_built_outside_the_buffers_by_some_kinds_only() -> None:
    built = {
        (kind, fork, lsn)
        for kind in PageKind
        for fork in ("main", "init", "vm")
        for lsn in (0, 1)
        if explain_unstamped(lsn, 200, [IMAGE], kind=kind, fork=fork) is not None
    }

    assert built == {
        (PageKind.GIST, "main", 1),
        (PageKind.BTREE, "init", 0),
        (PageKind.SPGIST, "init", 0),
        (PageKind.GENERIC, "init", 0),
    }
