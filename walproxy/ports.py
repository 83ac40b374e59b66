"""The seams of a node: what the driver needs of disk, primary and downstreams, and what they get of the node.

LSN ranges are half open. Everything that can block is async or runs in the node's one disk thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from walproxy.quorum.messages import Feedback, SlotHorizon
from walproxy.quorum.primary import PrimaryIdentity as PrimaryIdentity  # noqa: PLC0414 - part of the seam
from walproxy.quorum.state import Cluster, ControlState
from walproxy.quorum.terms import TermHistory
from walproxy.wire.function import Functions
from walproxy.wire.lsn import Lsn

# --- disk: walproxy/store -----------------------------------------------------------------------------------


class ControlFile(Protocol):
    """`<data_dir>/control`: magic, version, length, payload, CRC-32C. Payload: `quorum.state.encode_control`.

    Blocking; called from the disk thread.
    """

    def load(self) -> ControlState | None:
        """None if the node never ran here.

        Raises:
            DataDamaged: the file fails its checksum or is not one of ours.
        """

    def save(self, state: ControlState) -> None:
        """Replace the file: written aside, synced, renamed, directory synced. Durable when it returns.

        Raises:
            Poisoned: it could not be written or synced.
        """


@dataclass(frozen=True, slots=True)
class EndOfWal:
    """Where the whole records on disk end."""

    record_end_lsn: Lsn
    last_record_lsn: Lsn  # Start of the last one; 0 if there is none.
    reason: str  # Why the next one is not a record.


@dataclass(frozen=True, slots=True)
class LentFile:
    """The segment file that is being written to: its descriptor, and the WAL it has room for."""

    fd: int
    start_lsn: Lsn
    end_lsn: Lsn


class WalStore(Protocol):
    """`<data_dir>/wal/`: segment files with Postgres' names, the growing one `.partial`.

    Zero-filled ahead of need. One writer (the disk thread); `read` from any thread at any time. After
    Poisoned nothing but `read` is allowed.
    Invariant: beyond `write_lsn` the disk holds zeros, so that no record of another history can follow ours.
    """

    @property
    def start_lsn(self) -> Lsn:
        """Oldest byte held, a segment start; INVALID_LSN as long as nothing was created."""

    @property
    def write_lsn(self) -> Lsn:
        """End of what was written; the next `write` begins here."""

    @property
    def size_bytes(self) -> int:
        """Space the segments take, each counted once, and the file made ahead."""

    @property
    def room_end_lsn(self) -> Lsn:
        """`write` beyond here raises WalFull. Moves up when segments are removed."""

    def create(self, start_lsn: Lsn, *, tli: int, cluster: Cluster) -> None:
        """Begin an empty log at a segment start, on the ruins of any other. Durable when it returns.

        Raises:
            Poisoned
        """

    def recover(
        self, from_lsn: Lsn, *, end_lsn_max: Lsn | None, history: TermHistory, cluster: Cluster
    ) -> EndOfWal:
        """Find the end of the log, clear everything after it, and sync; then `write_lsn` is the end.

        Args:
            from_lsn: a record end that must be there (the saved commit LSN, or the log's start); records
            are checked
                from the start of its segment on.
            end_lsn_max: cut here at the latest, even if records go on (a truncation that was begun).
            history: says which timeline's files hold which LSN.
            cluster: what long page headers must say.

        Raises:
            DataDamaged: the whole records end before `from_lsn`.
            Poisoned
        """

    def write(self, lsn: Lsn, wal: bytes, *, tli: int) -> None:
        """Put bytes at `lsn`, which is `write_lsn`; they may cross segments; all of one Postgres timeline.

        A first write of a new `tli` inside a segment copies that segment's earlier bytes into the new file's.

        Raises:
            Poisoned
        """

    def sync(self) -> None:
        """Make everything written so far durable, names of files included.

        Raises:
            Poisoned: also ever after.
        """

    def lend(self, tli: int) -> LentFile | None:
        """For a writer elsewhere, who puts bytes at `write_lsn` and syncs the file before it says `on_written`.

        None if the next byte begins another file, or anything else waits for a sync. It holds until the next
        call of any method that writes.
        """

    def lend_before(self, tli: int) -> LentFile | None:
        """The segment before that file, to be read, if it is all of that timeline. The descriptor is the caller's."""

    def on_written(self, lsn: Lsn) -> None:
        """The writer elsewhere has written and synced up to there."""

    def poisoned(self, error: OSError) -> Exception:
        """The writer elsewhere has failed: gives what to raise. Nothing but `read` is allowed from now on."""

    def truncate(self, lsn: Lsn) -> None:
        """Cut the log back to `lsn` <= `write_lsn`. Durable when it returns; may be repeated after a crash.

        Later segments are removed, the boundary segment is zero after `lsn` and `.partial` again.

        Raises:
            Poisoned
        """

    def read(self, lsn: Lsn, size: int) -> bytes:
        """Exactly the bytes [lsn, lsn + size), written but perhaps not synced.

        Raises:
            WalRemoved: they begin before `start_lsn`.
            ValueError: they end after `write_lsn`.
        """

    def remove_before(self, lsn: Lsn) -> int:
        """Remove the segments that end at or before `lsn`; gives the bytes freed."""

    def save_history(self, tli: int, content: bytes) -> None:
        """Keep `<tli>.history`. Durable when it returns."""

    def histories(self) -> Mapping[int, bytes]:
        """All timeline history files kept, by tli."""


# --- the primary: walproxy/upstream.py ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrimaryWal:
    """All WAL that had arrived, in one piece, at most `WAL_BYTES_MAX`; empty if only a keepalive came."""

    start_lsn: Lsn
    wal: bytes
    primary_end_lsn: Lsn  # As the primary last told.


@dataclass(frozen=True, slots=True)
class EndOfTimeline:
    """The primary has nothing more on this timeline: it goes on as `next_tli` from `switch_lsn`."""

    next_tli: int
    switch_lsn: Lsn


class Upstream(Protocol):
    """One connection to the primary. Any failure raises PrimaryUnreachable; make a new one and try again."""

    async def identify(self) -> PrimaryIdentity:
        """Connect, ask, and make the slot if it is missing.

        The connection has a short `wal_sender_timeout` of its own and the group's application_name.

        Raises:
            PrimaryUnreachable: cannot connect, or it refuses replication; the message says which.
        """

    async def history(self, tli: int) -> bytes:
        """TIMELINE_HISTORY."""

    async def start(self, at_lsn: Lsn, tli: int) -> None:
        """START_REPLICATION SLOT.

        Raises:
            SlotActive: another connection still holds the slot. Retry soon.
            WalRemoved: the primary no longer has that WAL.
            PrimaryUnreachable
        """

    async def pump(self, take: Callable[[PrimaryWal], None]) -> EndOfTimeline:
        """Give WAL to `take`, in the loop's own callback, until the timeline ends.

        Answers keepalives itself, with the positions last reported. Raises what `take` raises.
        """

    def pause(self) -> None:
        """Let `pump` read no more until `resume`."""

    def resume(self) -> None:
        """Let `pump` read on."""

    def report(self, write_lsn: Lsn, flush_lsn: Lsn, apply_lsn: Lsn) -> None:
        """Send a status update now; what the socket does not take goes out as soon as it does."""

    def feedback(self, feedback: Feedback) -> None:
        """Send hot standby feedback."""

    async def close(self) -> None:
        """Let go of connection and slot."""


@dataclass(frozen=True, slots=True)
class LentStream:
    """A primary's stream that another reads on: descriptor of the socket, and the bytes of a message begun."""

    fd: int
    begun: bytes
    primary_end_lsn: Lsn
    reported_lsn: Lsn  # What keepalives are answered with.


@runtime_checkable
class LendableUpstream(Upstream, Protocol):
    """One whose socket can be read and written by another, for a while."""

    @property
    def can_be_lent(self) -> bool:
        """It can be now: `pump` runs, nothing waits to be sent, and nothing encrypts it."""

    @property
    def next_lsn(self) -> Lsn:
        """Where the next WAL stands."""

    def lend(self, send: Callable[[bytes], None]) -> LentStream:
        """Stop reading; until it is taken back, `send` gets the payload of each CopyData that is to go out."""

    def on_taken(self, next_lsn: Lsn, primary_end_lsn: Lsn, messages: int, reported_lsn: Lsn) -> None:
        """The other has taken so many more messages, the WAL up to `next_lsn`, and reported what is committed."""

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        """Read again, `rest` first; and send `unsent`, before anything else."""

    def fail(self, error: Exception) -> None:
        """End `pump` with that; what was lent is not taken back."""


# --- downstreams: walproxy/server.py, walsender.py ----------------------------------------------------------


class Downstreams(Protocol):
    """The consumers that stream from this node and the slots they left here."""

    def slots(self) -> tuple[SlotHorizon, ...]:
        """Physical slots of this node, the pageserver's included, with how far each is."""

    def feedback(self) -> Feedback:
        """The oldest xmin of all of them."""


class CopyStream(Protocol):
    """Both ways of a CopyBoth, whichever side began it: `wire.libpq.CopyBoth` and the server's session."""

    async def receive(self) -> bytes | None:
        """The payload of the next CopyData; None when the other side ended.

        Raises:
            ConnectionError: the connection is lost.
        """

    async def pump(self, take: Callable[[bytes], None], done: Callable[[], None]) -> None:
        """Give each payload to `take`, and call `done` after all that were there, in the loop's own callback.

        Returns when the other side ended the copy. Raises as `receive`, and what `take` and `done` raise.
        """

    def pause(self) -> None:
        """Let `pump` read no more until `resume`."""

    def resume(self) -> None:
        """Let `pump` read on."""

    def send(self, data: bytes) -> None:
        """Queue one CopyData; goes out as soon as the socket takes it, without a `flush`."""

    async def flush(self) -> None:
        """Wait until everything queued is with the kernel."""

    def close(self) -> None:
        """End it at once."""


@runtime_checkable
class LendableCopy(CopyStream, Protocol):
    """One that we began, whose socket can be read and written by another, for a while."""

    @property
    def is_lendable(self) -> bool:
        """It can be at some times: nothing encrypts it."""

    @property
    def can_be_lent(self) -> bool:
        """As `LendableUpstream.can_be_lent`."""

    def lend(self, send: Callable[[bytes], None]) -> tuple[int, bytes]:
        """As `LendableUpstream.lend`; the socket's descriptor, and the bytes of a message begun."""

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        """As `LendableUpstream.take_back`."""

    def fail(self, error: Exception) -> None:
        """As `LendableUpstream.fail`."""


class NodeView(Protocol):
    """What server, walsender, console and status may know of the running node."""

    @property
    def name(self) -> str: ...
    @property
    def cluster(self) -> Cluster | None:
        """None before the first contact with a primary: nothing can be served yet."""

    @property
    def commit_lsn(self) -> Lsn:
        """Nothing at or above it may be served."""

    @property
    def start_lsn(self) -> Lsn:
        """Oldest WAL on this node."""

    @property
    def term_history(self) -> TermHistory:
        """Which timeline holds which LSN."""

    def histories(self) -> Mapping[int, bytes]:
        """Timeline history files."""

    async def wait_commit(self, above_lsn: Lsn, timeout_s: float) -> Lsn:
        """The commit LSN, as soon as it is above `above_lsn` or the time is over."""

    def read(self, lsn: Lsn, size: int) -> bytes:
        """Up to `size` bytes of committed WAL, from memory if recent. Raises as `WalStore.read`."""

    def attach(self, downstreams: Downstreams) -> None:
        """Whose slots and feedback count."""

    def functions(self) -> Functions:
        """What an operator may call over SQL."""

    def downstream_moved(self) -> None:
        """A slot or feedback changed: tell the proposer with the next reply."""

    async def serve_peer(self, stream: CopyStream) -> None:
        """Speak the quorum's protocol on a connection that asked START_PEER; returns when it ends."""

    def status(self) -> dict[str, object]:
        """`SHOW walproxy.status`, the node's own part of it, ready for JSON."""
