"""What the WAL says of one page: the chain of its changes, and any single record."""

import json
from collections.abc import Sequence
from typing import Any

from pageserver.timeline import Timeline
from walcore._native import WalInspector
from walproxy.wire.datum import Value
from walproxy.wire.lsn import Lsn, parse_lsn, segment_start

_WAL_PAGE_BYTES = 8192
_SPANS_BYTES = (3 * _WAL_PAGE_BYTES, 128 * _WAL_PAGE_BYTES)
"""How far before its end a record is looked for: most are small; the largest hold images of 32 pages."""


def page_chain(
    timeline: Timeline, key: tuple[int, int, int, int, int], lsn: Lsn
) -> Sequence[Sequence[Value]]:
    """What a read of a page uses, oldest first: (lsn, kind, rmgr, has_image, bytes)."""
    return [
        (step["lsn"], step["kind"], step.get("rmgr"), step.get("has_image", True), step["bytes"])
        for step in timeline.reader.chain(key, lsn)
    ]


def record_ending_at(timeline: Timeline, end_lsn: Lsn) -> str | None:
    """The record that ends at an LSN, as JSON; None if none does, or its WAL is no longer here."""
    segment_size = timeline.manifest.segment_size
    first_lsn = segment_start(timeline.manifest.start_lsn, segment_size)
    near, far = (max(first_lsn, end_lsn - span_bytes) for span_bytes in _SPANS_BYTES)
    # The segment before may have been left half empty by a switch; a record that begins in it says that it was not.
    within = max(far, segment_start(end_lsn - 1, segment_size))
    for start in dict.fromkeys((near, within, far)):
        record = _last_record(timeline, Lsn(start - start % _WAL_PAGE_BYTES), end_lsn)
        if record is not None and parse_lsn(record["end"]) == end_lsn:
            return json.dumps(record)
    return None


def _last_record(timeline: Timeline, start_lsn: Lsn, end_lsn: Lsn) -> dict[str, Any] | None:
    inspector = WalInspector(
        start_lsn, segment_size=timeline.manifest.segment_size, until_lsn=end_lsn, from_lsn=start_lsn
    )
    last = b""
    for piece in timeline.read_wal(start_lsn):
        lines = inspector.json(piece).splitlines()
        last = lines[-1] if lines else last
        if inspector.done or inspector.stopped or inspector.received_lsn >= end_lsn + _WAL_PAGE_BYTES:
            break
    return dict(json.loads(last)) if last else None
