"""TermHistory: which term, on which Postgres timeline, wrote the log from which LSN on."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from walproxy.wire.lsn import INVALID_LSN, Lsn


class Seal(enum.IntEnum):
    """What a term makes of the end of the log that it begins with. Source: docs/quorum.md rule 25."""

    OPEN = 0  # The log goes on.
    SEALED = 1  # The log ends here, until another timeline begins here or a term opens it again.


@dataclass(frozen=True, slots=True, order=True)
class TermEntry:
    """The log from `start_lsn` on was written in `term`, from Postgres timeline `tli`."""

    term: int
    tli: int
    start_lsn: Lsn
    seal: Seal = Seal.OPEN


@dataclass(frozen=True, slots=True)
class TermHistory:
    """Oldest entry first.

    WAL bytes are not stamped with terms; this list is what tells who wrote them. An entry counts as a
    record of
    length zero at its `start_lsn`: a log that ends exactly there holds it. Source: docs/quorum.md rule 5.

    Invariant: (term, tli) rises strictly and start_lsn never falls from one entry to the next; what follows
    a seal begins where it stands.
    """

    entries: tuple[TermEntry, ...] = ()

    def __post_init__(self) -> None:
        for before, after in zip(self.entries, self.entries[1:], strict=False):
            if not (
                (before.term, before.tli) < (after.term, after.tli) and before.start_lsn <= after.start_lsn
            ):
                raise ValueError(f"term history out of order: {before} then {after}")
            if before.seal and after.start_lsn != before.start_lsn:
                raise ValueError(f"term history goes on behind a seal: {before} then {after}")
        if any(entry.term < 1 or entry.tli < 1 or entry.start_lsn < 1 for entry in self.entries):
            raise ValueError("term history holds a zero")

    @classmethod
    def of(cls, entries: Iterable[tuple[int, int, int]]) -> "TermHistory":
        """From (term, tli, start_lsn)."""
        return cls(tuple(TermEntry(term, tli, Lsn(start)) for term, tli, start in entries))

    @property
    def last_term(self) -> int:
        """0 if nothing was ever written."""
        return self.entries[-1].term if self.entries else 0

    @property
    def last_tli(self) -> int:
        return self.entries[-1].tli if self.entries else 0

    @property
    def last_start_lsn(self) -> Lsn:
        return self.entries[-1].start_lsn if self.entries else INVALID_LSN

    @property
    def sealed_lsn(self) -> Lsn:
        """Where the log ends for good; INVALID_LSN if it goes on."""
        return self.entries[-1].start_lsn if self.entries and self.entries[-1].seal else INVALID_LSN

    def term_start_lsn(self, term: int) -> Lsn:
        """Where that term began to write; INVALID_LSN if it is not here."""
        return next((entry.start_lsn for entry in self.entries if entry.term == term), INVALID_LSN)

    def up_to(self, end_lsn: int) -> "TermHistory":
        """The part that a log ending at `end_lsn` holds."""
        return TermHistory(tuple(entry for entry in self.entries if entry.start_lsn <= end_lsn))

    def tli_at(self, lsn: int) -> int:
        """The timeline of the byte at `lsn`; 0 before the first entry."""
        tli = 0
        for entry in self.entries:
            if entry.start_lsn <= lsn:
                tli = entry.tli
        return tli

    def with_entry(self, term: int, tli: int, start_lsn: int, seal: Seal = Seal.OPEN) -> "TermHistory":
        return TermHistory((*self.entries, TermEntry(term, tli, Lsn(start_lsn), seal)))

    def extends(self, older: "TermHistory") -> bool:
        """True if `older` is the beginning of this one."""
        return self.entries[: len(older.entries)] == older.entries


def common_lsn(leader: TermHistory, log: TermHistory, log_end_lsn: Lsn) -> Lsn:
    """The highest LSN up to which a log agrees with the leader's.

    Args:
        leader: the whole history of the proposer's log.
        log: history of the other log; entries past its end are ignored.
        log_end_lsn: where the other log ends.

    Returns:
        INVALID_LSN if the two have no entry in common.
    Source:
        docs/quorum.md rule 9.
    """
    held = log.up_to(log_end_lsn)
    same = 0
    for ours, theirs in zip(leader.entries, held.entries, strict=False):
        if ours != theirs:
            break
        same += 1
    if same == 0:
        return INVALID_LSN
    ends = [log_end_lsn]
    if same < len(leader.entries):
        ends.append(leader.entries[same].start_lsn)
    if same < len(held.entries):
        ends.append(held.entries[same].start_lsn)
    return Lsn(min(ends))
