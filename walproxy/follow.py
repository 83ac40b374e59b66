"""PrimaryFollower: holds a connection to the primary whenever the core wants one, and takes its WAL."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from walproxy.errors import PrimaryUnreachable, SlotActive, WalRemoved
from walproxy.feedback import FeedbackForwarder
from walproxy.ports import LendableUpstream, PrimaryWal, Upstream, WalStore
from walproxy.quorum.errors import LogSealed, MessageRefused, PrimaryRefused
from walproxy.quorum.messages import WAL_BYTES_MAX
from walproxy.quorum.primary import Overlap, Proof, StreamPlan
from walproxy.quorum.replica import Replica
from walproxy.wire.lsn import INVALID_LSN, Lsn

_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 1.0
_REFUSED_RETRY_S: Final = 5.0

_log = structlog.get_logger(__name__)


class Pausable(Protocol):
    """What can be told to wait."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class FollowingNode(Protocol):
    """What the follower needs of its node."""

    def take(self, lsn: Lsn, wal: bytes) -> None:
        """New WAL of the primary. Raises MessageRefused."""

    def settle(self) -> None:
        """Carry out what the core has decided."""

    async def written(self, lsn: Lsn) -> None:
        """Wait until our own log is on disk up to there, and nothing is under way."""

    @property
    def has_room(self) -> bool:
        """False while our disk is far behind what we have taken."""

    def pause_until_room(self, stream: Pausable) -> None:
        """Read no more of that until there is room again."""


class PrimaryFollower:
    """Connects, proves, streams, reports; again and again.

    Args:
        node: who takes the WAL.
        replica: its core, which wants a primary or not, and judges it.
        store: its log.
        make_upstream: makes a new, unconnected connection.
    """

    def __init__(
        self,
        node: FollowingNode,
        *,
        replica: Replica,
        store: WalStore,
        make_upstream: Callable[[], Upstream],
    ) -> None:
        self.state = "not wanted"
        self.error = ""
        self.primary_end_lsn = INVALID_LSN
        # The end of what the primary had when it was connected: until all of it is committed it may show
        # what nobody else has.
        self.tail_lsn = INVALID_LSN
        self._node = node
        self._replica = replica
        self._store = store
        self._make_upstream = make_upstream
        # Streaming to us, in the term we propose in, and shown to have our log: it is told what is committed.
        self._upstream: Upstream | None = None
        self._feedback: FeedbackForwarder | None = None  # Of the stream there is.
        self._wish: tuple[bool, int] | None = None
        self._wish_changed = asyncio.Event()
        self.reported_lsn = INVALID_LSN
        # The primary had no WAL from before the end of our log, which lies on a segment boundary then.
        self._lacks_overlap_lsn = INVALID_LSN

    def notice(self) -> None:
        """The core may want something else than before."""
        proposer = self._replica.proposer
        wish = (self._replica.is_proposing, proposer.term) if proposer.wants_primary else None
        if wish != self._wish:
            self._wish = wish
            self._wish_changed.set()

    def report(self) -> None:
        """Acknowledge to the primary what the quorum holds, at once."""
        lsn = self._replica.proposer.commit_lsn
        if self._upstream is None or lsn <= self.reported_lsn or not self._replica.is_proposing:
            return
        self.reported_lsn = lsn
        with contextlib.suppress(PrimaryUnreachable):  # Found by whoever reads.
            self._upstream.report(lsn, lsn, lsn)

    @property
    def lendable(self) -> LendableUpstream | None:
        """The stream that is told what is committed, if another can go on with it."""
        return self._upstream if isinstance(self._upstream, LendableUpstream) else None

    def on_led(self, primary_end_lsn: Lsn, reported_lsn: Lsn, now_s: float) -> None:
        """Native code has gone on with the stream."""
        self.primary_end_lsn = primary_end_lsn
        self.reported_lsn = max(self.reported_lsn, reported_lsn)
        self._forward_feedback(now_s)

    def _forward_feedback(self, now_s: float) -> None:
        replica = self._replica
        if self._feedback is not None:
            self._feedback.forward(replica.acceptor.feedback, replica.proposer.other_peers, now_s)

    async def run(self) -> None:
        """Until cancelled."""
        retry_s = _RETRY_S
        while True:
            self._wish_changed.clear()
            if self._wish is None:
                self.state = "not wanted"
                await self._wish_changed.wait()
                retry_s = _RETRY_S
                continue
            changed = asyncio.create_task(self._wish_changed.wait())
            stream = asyncio.create_task(self._stream())
            try:
                await asyncio.wait({changed, stream}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (changed, stream):
                    task.cancel()
                await asyncio.wait({changed, stream})
            if stream.cancelled():
                continue
            wait_s = self._note(stream.exception(), retry_s)
            retry_s = min(retry_s * 1.5, _RETRY_MAX_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wish_changed.wait(), wait_s)

    def _note(self, error: BaseException | None, retry_s: float) -> float:
        """Note why there is no stream; gives how long to wait before the next attempt."""
        state, wait_s, log = "lost", retry_s, _log.info
        why = "" if error is None else str(error)
        match error:
            case SlotActive():
                state, wait_s = "waiting for the slot", _RETRY_S
            case PrimaryUnreachable():
                state = "unreachable"
            case LogSealed(advice=advice):
                state, wait_s, log = "sealed", _RETRY_MAX_S, _log.warning
                why += f"; what to do: {advice}"
            case PrimaryRefused(advice=advice):
                state, wait_s, log = "refused", _REFUSED_RETRY_S, _log.error
                why += f"; what to do: {advice}"
            case MessageRefused() | WalRemoved():
                log = _log.warning
            case None:
                pass
            case _:
                raise error
        if (state, why) != (self.state, self.error):
            log("no stream from the primary", state=state, error=why)
        self.state, self.error = state, why
        return wait_s

    async def _stream(self) -> None:
        """Connect, prove that the primary extends our log, and take its WAL until something ends it."""
        upstream = self._make_upstream()
        try:
            identity = await upstream.identify()
            self.primary_end_lsn = self.tail_lsn = identity.flush_lsn
            plan = self._replica.proposer.on_primary(identity, asyncio.get_running_loop().time())
            self._node.settle()
            if plan is None:
                # Enough to stand for election with; the term will bring us back here.
                self.state, self.error = "identified", ""
                await asyncio.get_running_loop().create_future()
                return
            log = self._replica.acceptor
            has_records = log.record_end_lsn not in {INVALID_LSN, log.state.log_start_lsn}
            proof = Proof(plan.proven_lsn, is_needed=has_records, harmless_lsn=identity.slot_restart_lsn)
            while True:
                plan = await self._stream_timeline(upstream, plan, proof)
        finally:
            self._upstream = self._feedback = None
            await upstream.close()

    async def _stream_timeline(self, upstream: Upstream, plan: StreamPlan, proof: Proof) -> StreamPlan:
        """Until the primary leaves this timeline; gives how to go on."""
        await self._node.written(plan.proven_lsn)
        await self._room()
        overlap = await self._start(upstream, plan)
        self.reported_lsn = INVALID_LSN
        self.state, self.error = "streaming", ""
        term = self._replica.proposer.term
        _log.info("streaming from the primary", start_lsn=str(plan.start_lsn), tli=plan.tli, term=term)
        if not proof.is_given:
            # It hears what it heard before: enough to count us, and nobody's wait ends by it.
            upstream.report(*3 * (proof.harmless_lsn,))
        self._begin_to_report(upstream, proof)
        self._feedback = FeedbackForwarder(upstream, asyncio.get_running_loop().time())

        def take(received: PrimaryWal) -> None:
            self.primary_end_lsn = received.primary_end_lsn
            self._forward_feedback(asyncio.get_running_loop().time())
            lsn, wal = overlap.check(received.start_lsn, received.wal)
            if wal:
                self._node.take(lsn, wal)
                if not self._node.has_room:
                    self._node.pause_until_room(upstream)
            if self._upstream is None:
                end_lsn = Lsn(received.start_lsn + len(received.wal))
                proof.on_received(end_lsn, overlap, record_end_lsn=self._replica.acceptor.record_end_lsn)
                self._begin_to_report(upstream, proof)

        try:
            ended = await upstream.pump(take)
        except WalRemoved:
            # The slot need not hold what lies before the end of our log: next time, do without.
            self._lacks_overlap_lsn = plan.proven_lsn
            raise
        self._upstream = None
        history = await upstream.history(ended.next_tli)
        following = self._replica.proposer.on_timeline(ended.next_tli, ended.switch_lsn, history)
        self._node.settle()
        return following

    def _begin_to_report(self, upstream: Upstream, proof: Proof) -> None:
        if proof.is_given:
            self._upstream = upstream
            self.report()

    async def _room(self) -> None:
        """Wait until the log can take a good piece of WAL: our disk is given only so much."""
        acceptor = self._replica.acceptor
        while (end := acceptor.room_end_lsn) is not None and end - acceptor.write_lsn < WAL_BYTES_MAX:
            why = "let the consumer that holds it go on, drop its slot, or raise max_wal_size_bytes"
            if self.state != "no room":
                _log.warning("no room for more wal", room_end_lsn=str(end), what_to_do=why)
            self.state, self.error = "no room", f"the log is full: {why}"
            await asyncio.sleep(_RETRY_MAX_S)

    async def _start(self, upstream: Upstream, plan: StreamPlan) -> Overlap:
        """Begin to stream a little before the end of our log."""
        if plan.start_lsn < plan.proven_lsn != self._lacks_overlap_lsn:
            ours = self._store.read(plan.start_lsn, plan.proven_lsn - plan.start_lsn)
            try:
                await upstream.start(plan.start_lsn, plan.tli)
            except WalRemoved:
                _log.info("primary has no wal to compare with", lsn=str(plan.start_lsn))
            else:
                return Overlap(plan.start_lsn, ours)
        await upstream.start(plan.proven_lsn, plan.tli)
        return Overlap(plan.proven_lsn, b"")
