"""Which records of a page explain that only its LSN differs."""

import pytest

from pageserver.verify.excuse import Excuse
from pageserver.verify.history import HINT_RECORD, PageRecord, explain_lsn

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
