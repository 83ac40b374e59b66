"""SimNode: one member's disk, process and connections."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.sim.disk import SimDisk
from tests.sim.primary import SimServer
from walproxy.quorum.acceptor import DiskWork
from walproxy.quorum.replica import Replica


@dataclass
class Stream:
    """A connection to the primary, of one term of one life. It ends with the incarnation it was made to."""

    incarnation: int
    term: int
    server: SimServer
    tli: int = 0
    sent: int = 0
    proven: int = 0


@dataclass
class SimNode:
    name: str
    disk: SimDisk
    life: int = 0
    replica: Replica | None = None
    is_stopped: bool = False  # A former member that was switched off.
    is_gone: bool = False  # Its disk was lost and replaced: nobody takes it for what it was.
    # WAL taken from the primary in this term, which may not be on disk yet.
    tail_start: int = 0
    tail: bytearray = field(default_factory=bytearray)
    seen_term: int = 0  # In which it proposed, as far as the checker was told.
    seen_commit: int = 0  # By its own counting in that term.
    seen_generation: int = 0
    stream: Stream | None = None
    tick_at_s: float = -1.0
    slow: float = 1.0
    full_at: int | None = None
    connections: set[str] = field(default_factory=set)  # That it dialled.

    def read(self, lsn: int, end: int) -> bytes:
        """Our own log, of which the last part may be in memory only."""
        if lsn == end:
            return b""
        if end <= self.tail_start or not self.tail_start:
            return self.disk.read(lsn, end)
        head = self.disk.read(lsn, self.tail_start) if lsn < self.tail_start else b""
        at = max(lsn, self.tail_start) - self.tail_start
        tail = bytes(self.tail[at : end - self.tail_start])
        held = (int(self.tail_start), self.tail_start + len(self.tail), self.disk.start, self.disk.end)
        assert len(head) + len(tail) == end - lsn, f"read {int(lsn)} to {int(end)} of {held}"
        return head + tail

    def forget_beyond(self, lsn: int) -> None:
        """The log was cut there."""
        if lsn < self.tail_start:
            self.tail_start, self.tail = lsn, bytearray()
        elif self.tail_start:
            del self.tail[lsn - self.tail_start :]

    def begin_tail(self, lsn: int) -> None:
        """All WAL before `lsn` is on disk."""
        self.tail_start, self.tail = lsn, bytearray()


def disk_steps(disk: SimDisk, work: DiskWork) -> list[Callable[[], None]]:
    """One entry a thing that is on disk or not when the power goes. Source: docs/quorum.md rule 22."""
    steps: list[Callable[[], None]] = []
    if work.control:
        steps.append(partial(disk.save, work.control))
    if work.new_log:
        steps.append(partial(disk.create, work.new_log.start_lsn))
    if work.cut_to_lsn is not None:
        # A cut takes several writes: the power may go when half of it is done.
        steps.append(partial(_cut_half, disk, work.cut_to_lsn))
        steps.append(partial(disk.truncate, work.cut_to_lsn))
    if work.control_after_cut:
        steps.append(partial(disk.save, work.control_after_cut))
    steps += [partial(disk.histories.__setitem__, tli, content) for tli, content in work.histories]
    steps += [partial(disk.write, write.lsn, write.wal) for write in work.wal]
    if work.wal:
        steps.append(disk.sync)
    return steps


def _cut_half(disk: SimDisk, to_lsn: int) -> None:
    disk.truncate(max(to_lsn, (to_lsn + disk.end) // 2))
