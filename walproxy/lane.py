"""The native lane: while the event loop waits, an acceptor's Appends are taken, synced and answered without it.

It runs in the event loop's own thread, inside its wait: nothing of Python's runs meanwhile, and the core is
brought up to date before anything does again. What is not steady goes to the core, from its first byte on.
"""

import selectors
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from walcore._native import FollowLane
from walproxy.opening import NativeScanner
from walproxy.ports import CopyStream, WalStore
from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.messages import PROTOCOL_VERSION, reply_needs
from walproxy.wire.lsn import Lsn

_LSN_MAX: Final = Lsn((1 << 64) - 1)


class LaneSelector(selectors.EpollSelector):
    """An event loop's selector that has something to do while it waits."""

    def __init__(self) -> None:
        super().__init__()
        # Gets how long the loop may wait; gives how long it still may.
        self.wait: Callable[[float | None], float | None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.wait is not None and (timeout is None or timeout > 0):
            timeout = self.wait(timeout)
        return super().select(timeout)


@runtime_checkable
class Lendable(CopyStream, Protocol):
    """A stream whose socket can be read by another, for a while."""

    def lend(self) -> tuple[int, bytes] | None:
        """Stop reading; the socket's descriptor, and what was read of a message that is not whole yet.

        None, and nothing was stopped, if something waits to be sent, or nobody pumps.
        """

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        """Read again, `rest` first; and send `unsent`, before anything else."""


class Lane:
    """What is lent to native code, until `give_back`: one stream, one segment file, the end of the log.

    Invariant: between two `run` the acceptor and the store know all that was taken.
    """

    def __init__(self, acceptor: Acceptor, store: WalStore, stream: Lendable, native: FollowLane) -> None:
        self.stream = stream
        self._acceptor = acceptor
        self._store = store
        self._leader = acceptor.leader
        self._term, self._generation = acceptor.state.term, acceptor.generation
        self._native = native
        self._needs = (acceptor.feedback, acceptor.slots)
        self._write_lsn = acceptor.write_lsn
        self._heard = 0

    @classmethod
    def begin(
        cls, acceptor: Acceptor, store: WalStore, stream: Lendable, *, event_loop: int
    ) -> "Lane | None":
        """Lend all that it takes; None if the log is not at rest, or its next byte begins another file.

        Raises:
            OSError: no more descriptors can be had; nothing is lent.
        """
        log = acceptor.steady()
        if log is None or not isinstance(log.scanner, NativeScanner):
            return None
        file = store.lend(log.tli)
        if file is None:
            return None
        lent = stream.lend()
        if lent is None:
            return None
        socket, begun = lent
        # The byte that fills a segment is Python's: names change there.
        room = min(file.end_lsn - 1, _LSN_MAX if acceptor.room_end_lsn is None else acceptor.room_end_lsn)
        try:
            native = FollowLane(
                event_loop=event_loop,
                socket=socket,
                begun=begun,
                file=file.fd,
                file_start_lsn=file.start_lsn,
                scanner=log.scanner.native,
                version=PROTOCOL_VERSION,
                generation=acceptor.generation,
                term=acceptor.state.term,
                tli=log.tli,
                write_lsn=acceptor.write_lsn,
                flush_lsn=acceptor.durable_flush_lsn,
                room_end_lsn=room,
                commit_lsn=acceptor.commit_lsn,
                needs=reply_needs(acceptor.append_reply()),
            )
        except OSError:
            stream.take_back(begun, b"")
            raise
        return cls(acceptor, store, stream, native)

    @property
    def is_steady(self) -> bool:
        """False if Python has changed what the lane stands on."""
        acceptor = self._acceptor
        return (
            (acceptor.leader, acceptor.state.term, acceptor.generation)
            == (self._leader, self._term, self._generation)
            and acceptor.write_lsn == self._write_lsn
            and acceptor.steady() is not None
        )

    def run(self, timeout_s: float | None, *, wakes_at_commit: bool) -> bool:
        """Take what comes until the event loop has work, the time is over, or something is not steady: False.

        Raises:
            OSError: a write or sync failed; nothing was answered since.
        """
        acceptor = self._acceptor
        needs = (acceptor.feedback, acceptor.slots)
        if needs != self._needs:
            self._native.set_needs(reply_needs(acceptor.append_reply()))
            self._needs = needs
        return self._native.run(timeout_s, wakes_at_commit)

    @property
    def is_disk_slow(self) -> bool:
        """The last sync was too slow for the event loop's thread."""
        return self._native.is_slow

    def bring_up_to_date(self, now_s: float) -> int:
        """Tell acceptor and store what was taken since. Gives how many Appends that was."""
        heard, self._heard = self._heard, self._native.heard
        if heard == self._heard:
            return 0
        write, flush, last_record, commit, horizon = map(Lsn, self._native.positions)
        self._write_lsn = write
        self._store.on_written(write)
        self._acceptor.on_taken(
            write, flush, last_record, commit_lsn=commit, horizon_lsn=horizon, now_s=now_s
        )
        return self._heard - heard

    def give_back(self) -> str | None:
        """Let go; gives why, if what comes next on the stream is not WAL: it is for the caller to end it then."""
        damage = self._native.damage
        if damage is not None:
            self._acceptor.on_damage()
        rest = b"" if damage is not None else self._native.rest()
        self.stream.take_back(rest, self._native.unsent())
        return damage
