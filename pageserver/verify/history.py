"""What the records of one page say about a difference."""

from collections.abc import Sequence
from dataclasses import dataclass

from pageserver.verify.excuse import Excuse


@dataclass(frozen=True, slots=True)
class PageRecord:
    """One change of a page: the end of its record, whether it brought an image, and its name."""

    end_lsn: int
    has_image: bool
    name: str


HINT_RECORD = "XLOG/FPI_FOR_HINT"


def explain_lsn(live_lsn: int, ours_lsn: int, records: Sequence[PageRecord]) -> Excuse | None:
    """Why two pages that are equal otherwise carry different LSNs; None if their records do not tell.

    Setting a hint bit logs the page once after each checkpoint. With full_page_writes off the record has no
    image: redo does nothing, while the live page gets its LSN. And where two backends set hints at once, or
    one does while the page is being written out, the record comes with an image that redo stamps, and the
    live page is left alone.

    Args:
        live_lsn: of the live page.
        ours_lsn: of ours.
        records: at least those of the page that end behind the lower of the two LSNs, up to the higher one.

    Source:
        PostgreSQL 18 ``src/backend/storage/buffer/bufmgr.c``, ``MarkBufferDirtyHint``; ``xloginsert.c``,
        ``XLogSaveBufferForHint``; ``xlog.c``, ``xlog_redo``.
    """
    low, high = sorted((live_lsn, ours_lsn))
    between = [record for record in records if low < record.end_lsn <= high]
    if not any(record.end_lsn == high for record in between):
        return None
    if any(record.name != HINT_RECORD for record in between):
        return None
    if live_lsn < ours_lsn:
        return Excuse.HINT_NOT_STAMPED
    return None if any(record.has_image for record in between) else Excuse.HINT_WITHOUT_IMAGE
