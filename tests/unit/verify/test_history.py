"""Which records of a page explain that only its LSN differs."""

import pytest

from pageserver.verify.excuse import Excuse
from pageserver.verify.history import HINT_RECORD, PageRecord, explain_lsn

INSERT = "Heap/INSERT"
BARE, IMAGE = False, True


@pytest.mark.parametrize(
    ("live_lsn", "ours_lsn", "records", "excuse"),
    [
        (200, 100, [(200, BARE, HINT_RECORD)], Excuse.HINT_WITHOUT_IMAGE),
        (
            200,
            100,
            [(100, BARE, INSERT), (150, BARE, HINT_RECORD), (200, BARE, HINT_RECORD)],
            Excuse.HINT_WITHOUT_IMAGE,
        ),
        (100, 200, [(200, IMAGE, HINT_RECORD)], Excuse.HINT_NOT_STAMPED),
        (100, 200, [(150, IMAGE, HINT_RECORD), (200, IMAGE, HINT_RECORD)], Excuse.HINT_NOT_STAMPED),
        (200, 100, [], None),
        (200, 100, [(100, BARE, HINT_RECORD)], None),
        (200, 100, [(201, BARE, HINT_RECORD)], None),
        (200, 100, [(199, BARE, HINT_RECORD)], None),
        (200, 100, [(200, BARE, INSERT)], None),
        (200, 100, [(200, IMAGE, HINT_RECORD)], None),
        (200, 100, [(150, BARE, INSERT), (200, BARE, HINT_RECORD)], None),
        (100, 200, [(200, IMAGE, INSERT)], None),
        (100, 200, [(150, BARE, INSERT), (200, IMAGE, HINT_RECORD)], None),
        (100, 200, [], None),
    ],
)
def test_only_hint_records_explain_another_lsn(
    live_lsn: int, ours_lsn: int, records: list[tuple[int, bool, str]], excuse: Excuse | None
) -> None:
    assert explain_lsn(live_lsn, ours_lsn, [PageRecord(*record) for record in records]) is excuse
