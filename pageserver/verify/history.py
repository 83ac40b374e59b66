"""What the records of one page say about a difference."""

from collections.abc import Sequence
from dataclasses import dataclass

from pageserver.verify.anatomy import PageKind
from pageserver.verify.excuse import Excuse


@dataclass(frozen=True, slots=True)
class PageRecord:
    """A record as far as one page is concerned."""

    end_lsn: int
    name: str
    names_page: bool
    has_image: bool
    hole_bytes: int = 0

    @property
    def is_hollow(self) -> bool:
        """Whether it brought a page with nothing between header and special space."""
        return self.name == "XLOG/FPI" and self.hole_bytes >= _BODY_BYTES


_BODY_BYTES = 8168
HINT_RECORD = "XLOG/FPI_FOR_HINT"


_GIST_BUILD_LSN = 1
_BUILT_OUTSIDE_BUFFERS = frozenset({PageKind.BTREE, PageKind.SPGIST, PageKind.GENERIC})


def explain_unstamped(
    live_lsn: int, ours_lsn: int, records: Sequence[PageRecord | None], *, kind: PageKind, fork: str
) -> Excuse | None:
    """Why a live page has the LSN it was built with, where the first image logged of it is all there is.

    Args:
        live_lsn: of the live page.
        ours_lsn: of ours.
        records: all that changed our page.
        kind: of the page.
        fork: of the relation.

    Source:
        PostgreSQL 15 ``src/backend/access/gist/gistbuild.c``, ``gist_indexsortbuild_flush_ready_pages``;
        ``nbtree.c``, ``btbuildempty``; ``spginsert.c``, ``spgbuildempty``; ``contrib/bloom/blinsert.c``.
    """
    is_build = fork == "main" and kind is PageKind.GIST and live_lsn == _GIST_BUILD_LSN
    is_init = fork == "init" and kind in _BUILT_OUTSIDE_BUFFERS and live_lsn == 0
    if not (is_build or is_init) or len(records) != 1:
        return None
    record = records[0]
    if record is None or record.name != "XLOG/FPI" or record.end_lsn != ours_lsn:
        return None
    return Excuse.WRITTEN_BEFORE_LOGGED if record.names_page and record.has_image else None


def explain_lsn(live_lsn: int, ours_lsn: int, records: Sequence[PageRecord | None]) -> Excuse | None:
    """Why two pages that are equal otherwise carry different LSNs; None if their records do not tell.

    Setting a hint bit logs the page once after each checkpoint. With full_page_writes off the record has no
    image: redo does nothing, while the live page gets its LSN. And where two backends set hints at once, or
    one does while the page is being written out, the record comes with an image that redo stamps, and the
    live page is left alone.

    Args:
        live_lsn: of the live page.
        ours_lsn: of ours.
        records: where the live page is ahead, the record that ends at its LSN; where it is behind, all that
            changed our page since. None for one that is not known.

    Source:
        PostgreSQL 18 ``src/backend/storage/buffer/bufmgr.c``, ``MarkBufferDirtyHint``; ``xloginsert.c``,
        ``XLogSaveBufferForHint``; ``xlog.c``, ``xlog_redo``.
    """
    if not records or any(record is None or record.name != HINT_RECORD for record in records):
        return None
    known = [record for record in records if record is not None and record.names_page]
    if max((record.end_lsn for record in known), default=0) != max(live_lsn, ours_lsn):
        return None
    if live_lsn < ours_lsn:
        return Excuse.HINT_NOT_STAMPED
    return None if any(record.has_image for record in known) else Excuse.HINT_WITHOUT_IMAGE
