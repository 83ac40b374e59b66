"""The proof that a stock primary's WAL extends the quorum's log, before a byte of it is taken."""

import re
from dataclasses import dataclass

from walproxy.quorum.errors import LogSealed, PrimaryRefused
from walproxy.quorum.state import Cluster
from walproxy.wire.lsn import INVALID_LSN, Lsn, segment_start

_WAL_PAGE_BYTES = 8192
_OVERLAP_BYTES_MAX = 8 * _WAL_PAGE_BYTES
_TAIL_BYTES_MAX = 16 << 20  # After the last record: zeros, of a segment that was switched.
_HEADER_BYTES_MAX = 40
_HISTORY_LINE = re.compile(rb"\s*(\d+)\s+([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\b")

_REWIND = (
    "run pg_rewind on it against a server that has all of the quorum's wal or, if it ran with"
    " full_page_writes off, rebuild it from a base backup; then start it as the primary again"
)


@dataclass(frozen=True, slots=True)
class PrimaryIdentity:
    """What a primary says of itself."""

    cluster: Cluster
    tli: int
    flush_lsn: Lsn
    # Where its slot for us holds WAL from; the slot is created, with WAL reserved, if it was not there.
    slot_restart_lsn: Lsn
    server_version: str
    # History file of `tli`; empty for timeline 1.
    history: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Stream from `start_lsn` on `tli`; what comes before `proven_lsn` must equal our own log.

    If the primary no longer has WAL from `start_lsn`, `proven_lsn` itself will do: the first record names the
    one before it.
    """

    start_lsn: Lsn
    proven_lsn: Lsn
    tli: int


def switch_lsn(history: bytes, tli: int) -> Lsn:
    """Where a timeline's history file says that the server left `tli`; INVALID_LSN if it never was on it.

    Source: PostgreSQL 17 ``src/backend/access/transam/timeline.c``, ``readTimeLineHistory``.
    """
    for line in history.splitlines():
        match = _HISTORY_LINE.match(line)
        if match and int(match[1]) == tli:
            return Lsn(int(match[2], 16) << 32 | int(match[3], 16))
    return INVALID_LSN


def plan_first_stream(primary: PrimaryIdentity) -> StreamPlan:
    """The very first stream of a group. Source: docs/quorum.md rule 15."""
    start = segment_start(primary.slot_restart_lsn, primary.cluster.segment_size)
    return StreamPlan(start, start, primary.tli)


def plan_stream(
    primary: PrimaryIdentity,
    *,
    cluster: Cluster,
    tli: int,
    history: bytes,
    local_start_lsn: Lsn,
    end_lsn: Lsn,
    last_record_lsn: Lsn = INVALID_LSN,
    is_sealed: bool = False,
) -> StreamPlan:
    """How to go on from a log that ends at `end_lsn` on timeline `tli`.

    All of that log may have been acknowledged, whatever part of it is known to be committed: so a primary
    that
    lacks any of it is refused. Source: docs/quorum.md rules 16 and 25.

    Args:
        history: our history file of `tli`, empty if we have none.
        primary: what it said of itself.
        cluster: whose WAL our log holds.
        tli: the timeline of the end of our log.
        local_start_lsn: the oldest WAL to compare with.
        end_lsn: a record end; after an election that is where the term starts, or beyond.
        last_record_lsn: start of the record that ends there; INVALID_LSN if not known.
        is_sealed: the log goes on with a new timeline only, which begins exactly at its end.

    Raises:
        PrimaryRefused: it is another cluster's, behind, or diverged.
        LogSealed: the log goes on without it.
    """
    theirs = primary.cluster
    if (theirs.system_id, theirs.segment_size) != (cluster.system_id, cluster.segment_size):
        raise PrimaryRefused(
            "primary is another cluster",
            advice="point primary_conninfo at the right server, or give the nodes empty data_dirs",
            system_id=theirs.system_id,
            ours=cluster.system_id,
            segment_size=theirs.segment_size,
        )
    if theirs.major != cluster.major:
        raise PrimaryRefused(
            "primary runs another major version",
            advice="after pg_upgrade the log begins anew: give the nodes empty data_dirs",
            major=theirs.major,
            ours=cluster.major,
        )
    _check_timeline(primary, tli=tli, history=history, end_lsn=end_lsn, is_sealed=is_sealed)
    if primary.flush_lsn < end_lsn:
        raise PrimaryRefused(
            "primary is behind the quorum: it lost wal that may have been acknowledged",
            advice="recover it from a base backup and this quorum's wal, then start it as the primary again",
            flush=primary.flush_lsn,
            log_end=end_lsn,
        )
    start_lsn = _overlap_start(local_start_lsn, end_lsn, last_record_lsn, cluster.segment_size)
    return StreamPlan(start_lsn, end_lsn, tli)


def _check_timeline(
    primary: PrimaryIdentity, *, tli: int, history: bytes, end_lsn: Lsn, is_sealed: bool
) -> None:
    """It is on our timeline, or left it where our log can go on. Source: docs/quorum.md rules 16 and 25."""
    if primary.tli < tli:
        raise PrimaryRefused(
            "primary is on a timeline that was left", advice=_REWIND, tli=primary.tli, ours=tli
        )
    if primary.tli == tli and is_sealed:
        raise LogSealed(
            "the log is sealed: nothing more of this timeline is taken",
            advice="promote a standby for which `walproxy promote-check` is green, and point primary_conninfo"
            " at it; or take back the seal with `walproxy unseal`",
            tli=tli,
            sealed=end_lsn,
        )
    if primary.tli == tli and history and primary.history and primary.history != history:
        raise PrimaryRefused(
            "primary has diverged: another history of this timeline", advice=_REWIND, tli=tli
        )
    if primary.tli > tli:
        left_at = switch_lsn(primary.history, tli)
        if left_at < end_lsn:
            raise PrimaryRefused(
                "primary has diverged: it left our timeline before the end of the log",
                advice=_REWIND,
                tli=tli,
                left_at=left_at,
                log_end=end_lsn,
            )
        if is_sealed and left_at > end_lsn:
            raise PrimaryRefused(
                "primary left our timeline beyond the sealed end of the log: it has wal that nobody acknowledged",
                advice="promote a server for which `walproxy promote-check` is green, or take back the seal"
                " with `walproxy unseal` to follow this one",
                tli=tli,
                left_at=left_at,
                sealed=end_lsn,
            )


def _overlap_start(local_start_lsn: Lsn, end_lsn: Lsn, last_record_lsn: Lsn, segment_size: int) -> Lsn:
    """A page boundary before the end, in its segment: older ones the slot need not hold any more.

    With the last record, if that is near: what follows it may be zeros, which prove nothing.
    """
    last_byte = end_lsn - 1
    floor = max(local_start_lsn, segment_start(last_byte, segment_size))
    page = last_byte - last_byte % _WAL_PAGE_BYTES
    start = max(floor, page + _WAL_PAGE_BYTES - _OVERLAP_BYTES_MAX)
    if floor <= last_record_lsn < start and end_lsn - last_record_lsn <= _TAIL_BYTES_MAX:
        start = last_record_lsn - last_record_lsn % _WAL_PAGE_BYTES
    return Lsn(start)


class Overlap:
    """Compares the beginning of a stream with our own log.

    Args:
        start_lsn: where the stream begins.
        ours: our own bytes from there to the end of the log.
    """

    def __init__(self, start_lsn: Lsn, ours: bytes) -> None:
        self._start_lsn = start_lsn
        self._ours = ours

    def check(self, lsn: Lsn, wal: bytes) -> tuple[Lsn, bytes]:
        """Take a piece of the stream; give what lies beyond our log, perhaps nothing.

        Raises:
            PrimaryRefused: it differs from ours.
        """
        end_lsn = self._start_lsn + len(self._ours)
        if lsn >= end_lsn:
            return lsn, wal
        at = lsn - self._start_lsn
        ours = self._ours[at : at + len(wal)]
        if wal[: len(ours)] != ours:
            differs = next(i for i, (a, b) in enumerate(zip(wal, ours, strict=False)) if a != b)
            raise PrimaryRefused(
                "primary has diverged: its wal is not ours", advice=_REWIND, at=Lsn(lsn + differs)
            )
        return Lsn(lsn + len(ours)), wal[len(ours) :]

    @property
    def end_lsn(self) -> Lsn:
        return Lsn(self._start_lsn + len(self._ours))

    @property
    def says_something(self) -> bool:
        """There is more in it than page headers and zeros, as after a switch of segments."""
        pages = range(0, len(self._ours), _WAL_PAGE_BYTES)
        return any(self._ours[at + _HEADER_BYTES_MAX : at + _WAL_PAGE_BYTES].strip(b"\0") for at in pages)


class Proof:
    """Whether a primary has been shown to have our log. Until then it is told of no commit.

    It is once it has sent again what our log ends with, or a whole record more, which names the one before; a log
    without any record needs no proof. Source: docs/quorum.md rule 16.

    Args:
        log_end_lsn: of ours, when the connection began.
        is_needed: our log has records.
        harmless_lsn: it was told before of all up to there.
    """

    def __init__(self, log_end_lsn: Lsn, *, is_needed: bool, harmless_lsn: Lsn) -> None:
        self._log_end_lsn = log_end_lsn
        self.is_given = not is_needed
        self.harmless_lsn = min(harmless_lsn, log_end_lsn)

    def on_received(self, end_lsn: Lsn, overlap: Overlap, *, record_end_lsn: Lsn) -> None:
        """Its WAL up to `end_lsn` was compared with ours, or taken; now our last whole record ends there."""
        is_compared = end_lsn >= overlap.end_lsn == self._log_end_lsn and overlap.says_something
        self.is_given = self.is_given or is_compared or record_end_lsn > self._log_end_lsn
