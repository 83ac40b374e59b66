"""The rule of verification: at which LSN to ask for a page, and what to do about an answer."""

from enum import Enum

from walproxy.wire.lsn import Lsn

TRIES_MAX = 3
PAUSES_S = (0.05, 0.5)  # Before the second and the third reading.

_WAL_PAGE_BYTES = 8192
_SHORT_HEADER_BYTES, _LONG_HEADER_BYTES = 24, 40


class Finding(Enum):
    """What comparing one page said."""

    SAME = "equal, or excused by name"
    LSN = "only pd_lsn differs"
    VISIBILITY = "the visibility map differs"
    ABSENT = "we have no such block"
    NEVER_LOGGED = "we have no such block, and no record ever spoke of the live one"
    UNREADABLE = "we refuse to rebuild it"
    BYTES = "bytes differ"


class Step(Enum):
    """What comes next for that page."""

    ACCEPT = "count it as identical"
    PROVE = "ask for the records of the page: they may explain it"
    READ_AGAIN = "read both again"
    REPORT = "count it as different"


def decide(finding: Finding, *, tries: int, is_refuted: bool) -> Step:
    """The next step for a page.

    Args:
        finding: what was found this time.
        tries: how often the page was read, this time included.
        is_refuted: the records of the page were asked for and do not explain this finding.
    """
    match finding:
        case Finding.SAME | Finding.NEVER_LOGGED:
            return Step.ACCEPT
        case Finding.LSN | Finding.VISIBILITY if not is_refuted:
            return Step.PROVE
        case _:
            return Step.READ_AGAIN if tries < TRIES_MAX else Step.REPORT


def asked_lsn(insert_lsn: int, page_lsn: int, *, segment_size: int) -> Lsn:
    """Where to ask for a page.

    Args:
        insert_lsn: ``pg_current_wal_insert_lsn()``, read before the page was.
        page_lsn: of the live page.
        segment_size: bytes of a WAL segment file.

    Every record that ends at or before the insert position was on the page when it was read, since whoever
    inserts a record holds the page locked until it carries the change; so was every record up to the page's
    own LSN.
    """
    return max(record_boundary(insert_lsn, segment_size=segment_size), Lsn(page_lsn))


def record_boundary(insert_lsn: int, *, segment_size: int) -> Lsn:
    """An insert position as the end of the record before it.

    Just behind the header of a WAL page they differ: the record ended at the page's boundary.

    Source:
        PostgreSQL 18 ``src/backend/access/transam/xlog.c``, ``XLogBytePosToRecPtr`` and
        ``XLogBytePosToEndRecPtr``.
    """
    is_first = insert_lsn % segment_size < _WAL_PAGE_BYTES
    header = _LONG_HEADER_BYTES if is_first else _SHORT_HEADER_BYTES
    return Lsn(insert_lsn - header if insert_lsn % _WAL_PAGE_BYTES == header else insert_lsn)
