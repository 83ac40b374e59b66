"""AcceptorLane: an acceptor's Appends are taken, synced and answered by native code."""

from typing import Final, Protocol, runtime_checkable

import structlog

from walcore._native import FollowLane
from walproxy.opening import NativeScanner
from walproxy.ports import CopyStream, WalStore
from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.messages import PROTOCOL_VERSION, reply_needs
from walproxy.wire.lsn import Lsn

_LSN_MAX: Final = Lsn((1 << 64) - 1)

_log = structlog.get_logger(__name__)


@runtime_checkable
class Lendable(CopyStream, Protocol):
    """A stream whose socket can be read by another, for a while."""

    def lend(self) -> tuple[int, bytes] | None:
        """Stop reading; the socket's descriptor, and what was read of a message that is not whole yet.

        None, and nothing was stopped, if something waits to be sent, or nobody pumps.
        """

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        """Read again, `rest` first; and send `unsent`, before anything else."""


class AcceptorLane:
    """An acceptor that takes Appends: lent are one stream, one segment file, the end of the log. See `Lane`."""

    def __init__(self, acceptor: Acceptor, store: WalStore, stream: Lendable, native: FollowLane) -> None:
        self._stream = stream
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
    ) -> "AcceptorLane | None":
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
        acceptor = self._acceptor
        return (
            (acceptor.leader, acceptor.state.term, acceptor.generation)
            == (self._leader, self._term, self._generation)
            and acceptor.write_lsn == self._write_lsn
            and acceptor.steady() is not None
        )

    def run(self, timeout_s: float | None, *, wakes_at_commit: bool) -> bool:
        acceptor = self._acceptor
        needs = (acceptor.feedback, acceptor.slots)
        if needs != self._needs:
            self._native.set_needs(reply_needs(acceptor.append_reply()))
            self._needs = needs
        return self._native.run(timeout_s, wakes_at_commit)

    @property
    def is_disk_slow(self) -> bool:
        return self._native.is_slow

    def bring_up_to_date(self, now_s: float) -> int:
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

    def give_back(self, now_s: float) -> None:  # noqa: ARG002 - as `Lane` has it
        damage = self._native.damage
        rest = self._native.rest() if damage is None else b""
        self._stream.take_back(rest, self._native.unsent())
        if damage is not None:
            self._acceptor.on_damage()
            _log.warning("wal of the proposer is damaged", leader=self._leader, error=damage)
            self._stream.close()

    def holds(self, stream: object) -> bool:
        return self._stream is stream
