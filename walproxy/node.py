"""Node: owns the consensus core of this member and does what it decides, in its order."""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from walcore._native import WalScanner
from walcore.errors import WalCorrupt
from walproxy import peers
from walproxy.config import Settings
from walproxy.errors import (
    ConfigInvalid,
    NotReady,
    PrimaryUnreachable,
    SlotActive,
    WalproxyError,
    WalRemoved,
)
from walproxy.ports import (
    ControlFile,
    CopyStream,
    Downstreams,
    EndOfTimeline,
    Upstream,
    WalStore,
)
from walproxy.quorum.acceptor import Acceptor, DiskWork
from walproxy.quorum.errors import MessageRefused, PrimaryRefused
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import Message, append_prefix, encode
from walproxy.quorum.primary import Overlap, StreamPlan
from walproxy.quorum.proposer import Role, Timing, WalRange
from walproxy.quorum.records import RecordScanner
from walproxy.quorum.replica import Replica
from walproxy.quorum.state import Cluster, ControlState
from walproxy.quorum.terms import TermHistory
from walproxy.recent import RecentWal
from walproxy.wire.errors import WireError
from walproxy.wire.lsn import INVALID_LSN, Lsn, segment_start

_RECENT_BYTES_MAX: Final = 16 << 20
_BACKLOG_BYTES_MAX: Final = 32 << 20  # Taken from the primary and not on our disk yet.
_REMOVE_EVERY_S: Final = 2.0
_FAST_S: Final = 0.02  # For one write and sync.
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 1.0
_REFUSED_RETRY_S: Final = 5.0

_log = structlog.get_logger(__name__)


class NativeScanner:
    """The native `WalScanner`, as a `RecordScanner` of the core."""

    def __init__(self, start_lsn: Lsn, prev_lsn: Lsn, cluster: Cluster) -> None:
        self._scanner = WalScanner(
            start_lsn,
            segment_size=cluster.segment_size,
            system_id=cluster.system_id,
            prev_lsn=prev_lsn,
        )

    def feed(self, wal: bytes) -> None:
        try:
            self._scanner.feed(wal)
        except WalCorrupt as error:
            raise MessageRefused(f"wal is damaged: {error}") from error

    @property
    def record_end_lsn(self) -> int:
        return self._scanner.record_end_lsn

    @property
    def last_record_lsn(self) -> int:
        return self._scanner.last_record_lsn


def make_scanner(start_lsn: Lsn, *, prev_lsn: Lsn, cluster: Cluster) -> RecordScanner:
    return NativeScanner(start_lsn, prev_lsn, cluster)


def open_log(settings: Settings, control: ControlFile, store: WalStore) -> Acceptor:
    """Bring disk and control state to where the core can go on from. Blocking.

    Raises:
        ConfigInvalid: the members are not those of the group.
        DataDamaged, Poisoned
    """
    state = control.load()
    end = last = INVALID_LSN
    if state is None:
        membership = Membership(1, tuple(sorted(settings.members)))
        state = ControlState(settings.name, secrets.token_bytes(16), membership)
        control.save(state)
    if (state.name, set(state.membership.everyone)) != (settings.name, set(settings.members)):
        raise ConfigInvalid(
            "members: not those that this data_dir was made for",
            name=state.name,
            members=",".join(state.membership.everyone),
        )
    if state.must_create:
        assert state.cluster is not None
        store.create(state.local_start_lsn, tli=state.term_history.last_tli, cluster=state.cluster)
        end = state.local_start_lsn
    elif state.cluster is not None:
        found = store.recover(
            state.recover_from_lsn,
            end_lsn_max=state.truncating_to_lsn or None,
            history=state.term_history,
            cluster=state.cluster,
        )
        end, last = found.record_end_lsn, found.last_record_lsn
        _log.info("log recovered", end_lsn=str(end), commit_lsn=str(state.commit_lsn), after=found.reason)
    return Acceptor(
        state,
        record_end_lsn=end,
        last_record_lsn=last,
        tlis=store.histories().keys(),
        make_scanner=make_scanner,
        leader_timeout_s=settings.election_timeout_s,
    )


class Node:
    """One running member. Every method but `read` and `histories` belongs to the event loop.

    Args:
        settings: as loaded.
        control, store: of this node's data_dir, opened by nobody else.
        make_upstream: makes a new, unconnected connection to the primary.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        control: ControlFile,
        store: WalStore,
        make_upstream: Callable[[], Upstream],
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._control = control
        self._store = store
        self._make_upstream = make_upstream
        self._loop = asyncio.get_running_loop()
        acceptor = open_log(settings, control, store)
        self._replica = Replica(
            acceptor,
            histories=store.histories(),
            timing=Timing(settings.election_timeout_s, settings.heartbeat_interval_s),
            now_s=self._loop.time(),
            draw=random.random(),  # noqa: S311 - a time to wait, no secret
        )
        # While it is, work is done in place: handing it to the thread and back costs more than the sync.
        self._is_disk_fast = True
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._downstreams: Downstreams | None = None
        self._recent = RecentWal(bytes_max=_RECENT_BYTES_MAX)
        self._dialled: dict[str, CopyStream] = {}
        self._accepted: dict[str, CopyStream] = {}
        self._complaints = peers.Complaints()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._seen_commit_lsn = acceptor.commit_lsn
        self._committed = asyncio.Event()
        self._work_done = asyncio.Event()
        self._upstream: Upstream | None = None  # Streaming to us, in the term we propose in.
        self._upstream_state = "not wanted"
        self._upstream_error = ""
        self._upstream_wish: tuple[bool, int] | None = None
        self._upstream_changed = asyncio.Event()
        self._reported_lsn = INVALID_LSN
        self._role = ""
        self._removed_s = 0.0

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until cancelled.

        Raises:
            Poisoned: a write or sync failed; nothing was answered since.
        """
        others = {name: info for name, info in self._settings.members.items() if name != self.name}
        try:
            async with asyncio.TaskGroup() as tasks:
                for peer, conninfo in others.items():
                    tasks.create_task(peers.dial(peer, conninfo, self, self._complaints))
                tasks.create_task(self._follow_primary())
                tasks.create_task(self._fail())
                self.settle()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._stop()

    async def _fail(self) -> None:
        await self._failed

    async def _stop(self) -> None:
        """Save positions that are saved now and then, and let go."""
        self._role = "stopped"
        if not self._failed.done():
            self._failed.cancel()
            while self._replica.has_disk_work_out:
                await self._next_work_done()
            await self._loop.run_in_executor(self._disk, self._save_all)
        self._disk.shutdown(wait=True)

    def _save_all(self) -> None:
        """In the disk thread, when nothing else runs any more."""
        acceptor = self._replica.acceptor
        work = acceptor.ready()
        if work is not None:
            self._work(work)
        self._control.save(acceptor.state_to_save())

    # --- carrying out ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Do what the core has decided, as far as it can be done now; then wait for what comes."""
        if self._role == "stopped" or self._failed.done():
            return
        now_s = self._loop.time()
        replica = self._replica
        while (ready := replica.ready(now_s)) is not None:
            for peer, request in ready.requests:
                self._send_request(peer, request)
            if ready.disk is None:
                break
            if not ready.disk.touches_disk:
                self._finish(ready.disk)
            elif self._is_disk_fast and not ready.disk.control:
                try:
                    self._work(ready.disk)
                except WalproxyError as error:
                    self._fail_with(error)
                    return
                self._finish(ready.disk)
            else:
                done = self._loop.run_in_executor(self._disk, self._work, ready.disk)
                done.add_done_callback(lambda done, work=ready.disk: self._worked(work, done))  # type: ignore[misc]
                break
        self._after(now_s)

    def _work(self, work: DiskWork) -> None:
        """The fields in their order, each durable before the next is begun. Blocking."""
        store = self._store
        begun_s = time.monotonic()
        if work.control:
            self._control.save(work.control)
        if work.new_log:
            store.create(work.new_log.start_lsn, tli=work.new_log.tli, cluster=work.new_log.cluster)
        if work.cut_to_lsn is not None:
            store.truncate(work.cut_to_lsn)
        if work.control_after_cut:
            self._control.save(work.control_after_cut)
        for tli, content in work.histories:
            store.save_history(tli, content)
        for write in work.wal:
            store.write(write.lsn, write.wal, tli=write.tli)
        if work.wal:
            store.sync()
        self._is_disk_fast = time.monotonic() - begun_s < _FAST_S

    def _fail_with(self, error: BaseException) -> None:
        """Nothing is answered from now on, and the process ends."""
        if not self._failed.done():
            self._failed.set_exception(error)

    def _worked(self, work: DiskWork, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._fail_with(error)
            return
        self._finish(work)
        self.settle()

    def _finish(self, work: DiskWork) -> None:
        """All the work promised is durable: now say so."""
        answers = self._replica.on_done(work, self._loop.time(), random.random())  # noqa: S311
        self._report()
        for peer, message in answers:
            stream = self._accepted.get(peer)
            if stream is not None:
                self._send(stream, encode(message))
        self._work_done.set()

    def _send_request(self, peer: str, request: Message | WalRange) -> None:
        stream = self._dialled.get(peer)
        if stream is None:
            return
        if isinstance(request, WalRange):
            append = request.with_wal(b"")
            wal = (
                self._wal(request.start_lsn, request.end_lsn) if request.end_lsn > request.start_lsn else b""
            )
            self._send(stream, append_prefix(append) + wal)
        else:
            self._send(stream, encode(request))

    @staticmethod
    def _send(stream: CopyStream, data: bytes) -> None:
        # A lost connection is found by whoever reads it.
        with contextlib.suppress(ConnectionError, WireError):
            stream.send(data)

    def _wal(self, start_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """Our own log, the part that is not on disk yet included."""
        recent = self._recent.get(start_lsn, end_lsn)
        return self._store.read(start_lsn, end_lsn - start_lsn) if recent is None else recent

    def _after(self, now_s: float) -> None:
        """Tell everyone who waits, and set the clock."""
        replica = self._replica
        self._report()
        if replica.acceptor.commit_lsn != self._seen_commit_lsn:
            self._seen_commit_lsn = replica.acceptor.commit_lsn
            self._committed.set()
            self._committed = asyncio.Event()
        role = self.role
        if role != self._role:
            _log.info("role changed", role=role, before=self._role, term=self.term, leader=replica.leader)
            self._role = role
        proposer = replica.proposer
        wish = (replica.is_proposing, proposer.term) if proposer.wants_primary else None
        if wish != self._upstream_wish:
            self._upstream_wish = wish
            self._upstream_changed.set()
        deadline_s = proposer.deadline_s
        if self._timer is None or deadline_s < self._timer_s or self._timer_s <= now_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = max(deadline_s, now_s + 0.001)
            self._timer = self._loop.call_at(self._timer_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        if self._downstreams is not None:
            self._replica.acceptor.on_downstreams(self._downstreams.feedback(), self._downstreams.slots())
        self._replica.tick(now_s, random.random())  # noqa: S311
        self._maybe_remove(now_s)
        self.settle()

    def _report(self) -> None:
        """Acknowledge to the primary what the quorum holds, at once."""
        proposer = self._replica.proposer
        if self._upstream is None or not self._replica.is_proposing:
            return
        lsn = proposer.commit_lsn
        if lsn > self._reported_lsn:
            self._reported_lsn = lsn
            with contextlib.suppress(PrimaryUnreachable):  # Found by whoever reads.
                self._upstream.report(lsn, lsn, lsn)

    def _maybe_remove(self, now_s: float) -> None:
        """Remove WAL that nobody needs. Source: docs/quorum.md rule 18."""
        cluster = self.cluster
        if cluster is None or now_s - self._removed_s < _REMOVE_EVERY_S:
            return
        self._removed_s = now_s
        slots = self._downstreams.slots() if self._downstreams else ()
        acceptor = self._replica.acceptor
        horizon = min((acceptor.state.horizon_lsn, acceptor.commit_lsn, *(slot.flush_lsn for slot in slots)))
        if segment_start(horizon, cluster.segment_size) > self._store.start_lsn:
            done = self._loop.run_in_executor(self._disk, self._store.remove_before, horizon)
            done.add_done_callback(self._on_removed)

    def _on_removed(self, done: asyncio.Future[int]) -> None:
        error = done.exception()
        if error is None:
            self._replica.acceptor.on_removed(self._store.start_lsn)
        else:
            self._fail_with(error)

    # --- peers -----------------------------------------------------------------------------------------

    def on_dialled(self, peer: str, stream: CopyStream) -> None:
        self._dialled[peer] = stream
        self._replica.proposer.on_connected(peer, self._loop.time())
        self.settle()

    def on_answer(self, peer: str, message: Message) -> None:
        self._replica.on_answer(peer, message, self._loop.time(), random.random())  # noqa: S311

    def on_hung_up(self, peer: str) -> None:
        self._dialled.pop(peer, None)
        self._replica.proposer.on_disconnected(peer)
        self.settle()

    def on_accepted(self, peer: str, stream: CopyStream) -> None:
        self._accepted[peer] = stream

    def on_request(self, peer: str, message: Message) -> None:
        self._replica.on_request(peer, message, self._loop.time())

    def on_left(self, peer: str, stream: CopyStream) -> None:
        if self._accepted.get(peer) is stream:
            del self._accepted[peer]
            self._replica.on_leader_lost(peer, self._loop.time(), random.random())  # noqa: S311
            self.settle()

    async def room(self) -> None:
        """Wait while our disk is behind what we have taken."""
        acceptor = self._replica.acceptor
        while acceptor.write_lsn - acceptor.durable_flush_lsn > _BACKLOG_BYTES_MAX:
            await self._next_work_done()

    async def _next_work_done(self) -> None:
        self._work_done.clear()
        await self._work_done.wait()

    async def serve_peer(self, stream: CopyStream) -> None:
        """Speak the quorum's protocol on a connection that asked START_PEER; returns when it ends."""
        await peers.answer(stream, self, self._settings.members, self._complaints)

    # --- the primary -----------------------------------------------------------------------------------

    async def _follow_primary(self) -> None:
        """Hold a connection to the primary whenever the core wants one."""
        retry_s = _RETRY_S
        while True:
            self._upstream_changed.clear()
            if self._upstream_wish is None:
                self._upstream_state = "not wanted"
                await self._upstream_changed.wait()
                retry_s = _RETRY_S
                continue
            changed = asyncio.create_task(self._upstream_changed.wait())
            stream = asyncio.create_task(self._stream())
            try:
                await asyncio.wait({changed, stream}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (changed, stream):
                    task.cancel()
                await asyncio.wait({changed, stream})
            if stream.cancelled():
                continue
            wait_s = self._why_no_stream(stream.exception(), retry_s)
            retry_s = min(retry_s * 1.5, _RETRY_MAX_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._upstream_changed.wait(), wait_s)

    def _why_no_stream(self, error: BaseException | None, retry_s: float) -> float:
        """Note why there is no stream; gives how long to wait before the next attempt."""
        state, wait_s = "lost", retry_s
        match error:
            case SlotActive():
                state, wait_s = "waiting for the slot", _RETRY_S
            case PrimaryUnreachable():
                state = "unreachable"
            case PrimaryRefused():
                state, wait_s = "refused", _REFUSED_RETRY_S
            case MessageRefused() | WalRemoved() | None:
                pass
            case _:
                raise error
        why = "" if error is None else str(error)
        if isinstance(error, PrimaryRefused):
            why += f"; what to do: {error.advice}"
        if (state, why) != (self._upstream_state, self._upstream_error):
            log = _log.error if state == "refused" else _log.info
            log("no stream from the primary", state=state, error=why)
        self._upstream_state, self._upstream_error = state, why
        return wait_s

    async def _stream(self) -> None:
        """Connect, prove that the primary extends our log, and take its WAL until something ends it."""
        upstream = self._make_upstream()
        try:
            identity = await upstream.identify()
            plan = self._replica.proposer.on_primary(identity, self._loop.time())
            self.settle()
            if plan is None:
                # Enough to stand for election with; the term will bring us back here.
                self._upstream_state = "identified"
                await asyncio.get_running_loop().create_future()
                return
            self._recent.clear()
            while plan is not None:
                plan = await self._stream_timeline(upstream, plan)
        finally:
            self._upstream = None
            await upstream.close()

    async def _stream_timeline(self, upstream: Upstream, plan: StreamPlan) -> StreamPlan | None:
        await self._written(plan.proven_lsn)
        overlap = await self._start(upstream, plan)
        self._upstream = upstream
        self._reported_lsn = INVALID_LSN
        self._upstream_state, self._upstream_error = "streaming", ""
        _log.info("streaming from the primary", start_lsn=str(plan.start_lsn), tli=plan.tli, term=self.term)
        self._report()
        while True:
            received = await upstream.receive()
            if isinstance(received, EndOfTimeline):
                history = await upstream.history(received.next_tli)
                proposer = self._replica.proposer
                return proposer.on_timeline(received.next_tli, received.switch_lsn, history)
            lsn, wal = overlap.check(received.start_lsn, received.wal)
            if wal:
                self._replica.on_primary_wal(lsn, wal, self._loop.time())
                self._recent.add(lsn, wal, stored_lsn=self._replica.acceptor.durable_flush_lsn)
                self.settle()
                await self.room()

    async def _start(self, upstream: Upstream, plan: StreamPlan) -> Overlap:
        """Begin to stream a little before the end of our log."""
        if plan.start_lsn < plan.proven_lsn:
            ours = self._store.read(plan.start_lsn, plan.proven_lsn - plan.start_lsn)
            try:
                await upstream.start(plan.start_lsn, plan.tli)
            except WalRemoved:
                _log.info("primary has no wal to compare with", lsn=str(plan.start_lsn))
            else:
                return Overlap(plan.start_lsn, ours)
        await upstream.start(plan.proven_lsn, plan.tli)
        return Overlap(plan.proven_lsn, b"")

    async def _written(self, lsn: Lsn) -> None:
        """Wait until our own log is on disk up to there."""
        while self._replica.acceptor.durable_flush_lsn < lsn or self._replica.has_disk_work_out:
            await self._next_work_done()

    # --- NodeView --------------------------------------------------------------------------------------

    def attach(self, downstreams: Downstreams) -> None:
        """Whose slots and feedback count."""
        self._downstreams = downstreams

    @property
    def role(self) -> str:
        match self._replica.proposer.role:
            case Role.PROPOSING:
                return "proposer"
            case Role.FOLLOWING:
                return "acceptor"
            case _:
                return "candidate"

    @property
    def term(self) -> int:
        return self._replica.acceptor.state.term

    @property
    def cluster(self) -> Cluster | None:
        return self._replica.acceptor.state.cluster

    @property
    def commit_lsn(self) -> Lsn:
        return self._replica.acceptor.commit_lsn

    @property
    def start_lsn(self) -> Lsn:
        return self._store.start_lsn

    @property
    def term_history(self) -> TermHistory:
        return self._replica.acceptor.state.term_history

    def histories(self) -> Mapping[int, bytes]:
        return self._store.histories()

    async def wait_commit(self, above_lsn: Lsn, timeout_s: float) -> Lsn:
        """The commit LSN, as soon as it is above `above_lsn` or the time is over."""
        if self.commit_lsn <= above_lsn:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while self.commit_lsn <= above_lsn:
                        await self._committed.wait()
        return self.commit_lsn

    def read(self, lsn: Lsn, size: int) -> bytes:
        """Up to `size` bytes of committed WAL. Raises WalRemoved, NotReady."""
        size = min(size, self.commit_lsn - lsn)
        if size <= 0:
            raise NotReady("wal is not committed yet", lsn=lsn, commit=self.commit_lsn)
        recent = self._recent.get(lsn, Lsn(lsn + size))
        return self._store.read(lsn, size) if recent is None else recent

    def downstream_moved(self) -> None:
        """A slot or feedback changed; the proposer hears of it with the next heartbeat."""

    def status(self) -> dict[str, object]:
        """The node's own part of `SHOW walproxy.status`, ready for JSON."""
        replica, acceptor, proposer = self._replica, self._replica.acceptor, self._replica.proposer
        state, now_s = acceptor.state, self._loop.time()
        shown: dict[str, object] = {
            "name": self.name,
            "role": self.role,
            "leader": replica.leader,
            "term": state.term,
            "generation": acceptor.generation,
            "members": list(state.membership.everyone),
            "system_id": str(state.cluster.system_id) if state.cluster else None,
            "major": state.cluster.major if state.cluster else None,
            "tli": state.term_history.last_tli,
            "term_history": [[e.term, e.tli, str(e.start_lsn)] for e in state.term_history.entries],
            "log_start_lsn": str(state.log_start_lsn),
            "start_lsn": str(self._store.start_lsn),
            "write_lsn": str(acceptor.write_lsn),
            "flush_lsn": str(acceptor.durable_flush_lsn),
            "commit_lsn": str(acceptor.commit_lsn),
            "horizon_lsn": str(state.horizon_lsn),
            "wal_size_bytes": self._store.size_bytes,
            "wal_size_bytes_max": self._settings.max_wal_size_bytes,
            "upstream": {"state": self._upstream_state, "error": self._upstream_error},
            "refused_messages": dict(self._complaints.counts),
        }
        if replica.is_proposing:
            shown["peers"] = {
                name: {
                    "connected": peer.is_connected,
                    "streaming": peer.is_streaming,
                    "flush_lsn": str(peer.held_lsn),
                    "lag_bytes": max(0, acceptor.write_lsn - peer.held_lsn),
                    "heard_s": round(now_s - peer.heard_s, 3) if peer.heard_s > 0 else None,
                    "refused": peer.refused,
                }
                for name, peer in proposer.peers.items()
                if name != self.name
            }
        return shown
