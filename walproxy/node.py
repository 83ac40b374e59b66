"""Node: owns the consensus core of this member and does what it decides, in its order."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from walproxy import peers
from walproxy.config import Settings, without_password
from walproxy.dialler import Dialler
from walproxy.errors import NotReady, WalRemoved
from walproxy.follow import Pausable, PrimaryFollower
from walproxy.lane import Lane, LaneSelector, begin_lane
from walproxy.members import MemberFunctions, addresses, membership_status
from walproxy.opening import open_log
from walproxy.operate import Operator
from walproxy.ports import ControlFile, CopyStream, Downstreams, Upstream, WalStore
from walproxy.quorum.acceptor import DiskWork
from walproxy.quorum.membership import Contact
from walproxy.quorum.messages import Greeting, Message, append_prefix, encode
from walproxy.quorum.replica import Replica
from walproxy.quorum.role import Role
from walproxy.quorum.state import Cluster, ControlState
from walproxy.quorum.terms import TermHistory
from walproxy.quorum.timing import Timing
from walproxy.quorum.walrange import WalRange
from walproxy.recent import RecentWal
from walproxy.wire.errors import WireError
from walproxy.wire.function import Functions
from walproxy.wire.lsn import Lsn, segment_start

_RECENT_BYTES_MAX: Final = 16 << 20
_BACKLOG_BYTES_MAX: Final = 32 << 20  # Taken from the primary and not on our disk yet.
_REMOVE_EVERY_S: Final = 2.0
_FAST_S: Final = 0.02  # For one write and sync.
_LANE_PAUSE_S: Final = 1.0  # After a native lane could not be had.

_log = structlog.get_logger(__name__)


class Node:
    """One running member. Every method but `read` and `histories` belongs to the event loop.

    Args:
        settings: as loaded.
        control, store: of this node's data_dir, opened by nobody else.
        make_upstream: makes a new, unconnected connection to the primary.
        selector: of the running event loop, for the native lane; without it all is done in Python.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        control: ControlFile,
        store: WalStore,
        make_upstream: Callable[[], Upstream],
        selector: LaneSelector | None = None,
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._control = control
        self._store = store
        self._loop = asyncio.get_running_loop()
        acceptor = open_log(settings, control, store)
        self._replica = Replica(
            acceptor,
            histories=store.histories,
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
        self._dialler = Dialler(self, self._complaints)
        self._noticed_generation = -1
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._seen_commit_lsn = acceptor.commit_lsn
        self._committed = asyncio.Event()
        self._work_done = asyncio.Event()
        self._paused: list[Pausable] = []
        self._follower = PrimaryFollower(
            self, replica=self._replica, store=store, make_upstream=make_upstream
        )
        self._operator = Operator(self._replica, self.settle)
        self._role = ""
        self._removed_s = 0.0
        self._is_removing = self._has_failed = False
        acceptor.room_end_lsn = store.room_end_lsn
        self._lane: Lane | None = None
        self._lane_from_s = 0.0  # No lane is begun before.
        self._waiting = 0  # For a commit.
        self._taken_natively = 0
        self._selector = selector
        if selector is not None:
            selector.wait = self._wait

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until cancelled.

        Raises:
            Poisoned: a write or sync failed; nothing was answered since.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._dialler.run())
                tasks.create_task(self._follower.run())
                tasks.create_task(self._fail())
                self.settle()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._stop()

    async def _fail(self) -> None:
        await asyncio.shield(self._failed)

    async def _stop(self) -> None:
        """Save positions that are saved now and then, and let go."""
        self._role = "stopped"
        self._give_back()
        if not self._failed.done():
            self._failed.cancel()
            # One thread: what was handed to it before is done then, and `_worked` has heard of it.
            await self._loop.run_in_executor(self._disk, int)
            if not self._has_failed and not self._replica.has_disk_work_out:
                work, state = self._replica.acceptor.ready(), self._replica.acceptor.state_to_save()
                await self._loop.run_in_executor(self._disk, self._save_all, work, state)
        self._disk.shutdown(wait=True)

    def _save_all(self, work: DiskWork | None, state: ControlState) -> None:
        """In the disk thread: the last that is written, both of one moment. Peers may still speak: to nobody."""
        if work is not None:
            self._work(work)
        self._control.save(state)

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
            elif self._is_disk_fast and not ready.disk.control and not self._is_removing:
                try:
                    self._work(ready.disk)
                except Exception as error:  # noqa: BLE001 - whatever it is, the disk has not what was promised
                    self._fail_with(error)
                    return
                self._finish(ready.disk)
            else:
                done = self._loop.run_in_executor(self._disk, self._work, ready.disk)
                done.add_done_callback(lambda done, work=ready.disk: self._worked(work, done))  # type: ignore[misc]
                break
        self._after(now_s)

    def _wait(self, timeout_s: float | None) -> float | None:
        """The event loop has nothing to do: let the native lane go on. Gives how long to wait after it."""
        try:
            if not self._may_run_lane():
                if self._lane is None:
                    return timeout_s
                self._give_back()
                return 0.0  # What was read goes to Python before anything is waited for.
            self._lane = self._lane or self._begin_lane()
            if self._lane is None:
                return timeout_s
            self._run_lane(self._lane, timeout_s)
        except OSError as error:
            self._lane = None
            self._fail_with(self._store.poisoned(error))
        except BaseException as error:  # noqa: BLE001 - it ends the node; raised here it would end the loop alone
            self._fail_with(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        return 0.0

    def _may_run_lane(self) -> bool:
        """Nothing is under way that the lane could get in the way of."""
        is_ours = self._is_disk_fast and not self._is_removing and not self._replica.has_disk_work_out
        is_over = self._failed.done() or self._role == "stopped"
        is_settled = self._replica.proposer.role in {Role.FOLLOWING, Role.PROPOSING}
        return is_ours and is_settled and not is_over and (self._lane is None or self._lane.is_steady)

    def _begin_lane(self) -> Lane | None:
        selector, now_s = self._selector, self._loop.time()
        if selector is None or now_s < self._lane_from_s:
            return None
        lent = self._replica, self._store, self._follower, self._accepted, self._dialled
        try:
            return begin_lane(*lent, event_loop=selector.fileno())
        except OSError as error:
            self._lane_from_s = now_s + _LANE_PAUSE_S
            _log.warning("the steady state goes on in Python: no native lane", error=str(error))
            return None

    def _run_lane(self, lane: Lane, timeout_s: float | None) -> None:
        is_steady = lane.run(timeout_s, wakes_at_commit=self._waiting > 0)
        now_s = self._loop.time()
        taken = lane.bring_up_to_date(now_s)
        self._taken_natively += taken
        self._is_disk_fast = not lane.is_disk_slow
        if taken:
            self._recent.clear()  # It ends where the lane began.
        if taken or self._replica.acceptor.commit_lsn != self._seen_commit_lsn:
            self._work_done.set()
            self._after(now_s)
        if not is_steady:
            self._give_back()

    def _give_back(self) -> None:
        """Python goes on from here."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.give_back(self._loop.time())

    def _give_back_if_lent(self, stream: object) -> None:
        if self._lane is not None and self._lane.holds(stream):
            self._give_back()

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
        self._has_failed = True
        if not self._failed.done():
            self._failed.set_exception(error)
        self._work_done.set()

    def _worked(self, work: DiskWork, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._fail_with(error)
            return
        with self._failing():
            self._finish(work)
            self.settle()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """For what the event loop calls: an error there ends the node, it does not just stop its clock."""
        try:
            yield
        except BaseException as error:
            self._fail_with(error)
            raise

    def _finish(self, work: DiskWork) -> None:
        """All the work promised is durable: now say so."""
        answers = self._replica.on_done(work, self._loop.time(), random.random())  # noqa: S311
        self._follower.report()
        for peer, message in answers:
            stream = self._accepted.get(peer)
            if stream is not None:
                self._send(stream, encode(message))
        self._work_done.set()
        if self._paused and self.has_room:
            for paused in self._paused:
                paused.resume()
            self._paused.clear()

    def _send_request(self, peer: str, request: Message | WalRange) -> None:
        stream = self._dialled.get(peer)
        if stream is None:
            return
        if isinstance(request, WalRange):
            try:
                wal = self._wal(request.start_lsn, request.end_lsn)
            except WalRemoved as error:
                self._replica.proposer.on_wal_removed(peer, str(error))
                return
            self._send(stream, append_prefix(request) + wal)
        else:
            self._send(stream, encode(request))

    @staticmethod
    def _send(stream: CopyStream, data: bytes) -> None:
        try:  # noqa: SIM105 - `suppress` costs more than the send does
            stream.send(data)
        except (ConnectionError, WireError):
            pass  # Found by whoever reads it.

    def _wal(self, start_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """Our own log, the part that is not on disk yet included. Raises WalRemoved."""
        if start_lsn == end_lsn:
            return b""
        term = self.term_history.last_term
        return self._recent.read(start_lsn, end_lsn, term=term, stored=self._store.read)

    def _after(self, now_s: float) -> None:
        """Tell everyone who waits, and set the clock."""
        replica = self._replica
        self._follower.report()
        if replica.acceptor.commit_lsn != self._seen_commit_lsn:
            self._seen_commit_lsn = replica.acceptor.commit_lsn
            self._committed.set()
            self._committed = asyncio.Event()
        if replica.acceptor.generation != self._noticed_generation:
            self._notice_membership()
        role = self.role
        if role != self._role:
            _log.info("role changed", role=role, before=self._role, term=self.term, leader=replica.leader)
            self._role = role
        self._follower.notice()
        # A timer that is overdue, or comes too early, sets the next one itself.
        due_s = max(replica.proposer.deadline_s, now_s + 0.001)
        if self._timer is None or due_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = due_s
            self._timer = self._loop.call_at(due_s, self._tick)

    def _notice_membership(self) -> None:
        """The members have changed: dial those that came, hang up on those that left."""
        acceptor = self._replica.acceptor
        self._noticed_generation = acceptor.generation
        _log.info("members", **membership_status(acceptor), is_member=acceptor.is_member)
        if self.role == "removed":
            _log.warning("this node is not a member of its group: it was removed, or replaced by another")
        known = addresses(acceptor.state.membership, self._settings.members)
        self._dialler.follow({name: known[name] for name in self._replica.peers_to_dial if name in known})

    def _tick(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        acceptor = self._replica.acceptor
        with self._failing():
            self._note_downstreams()
            acceptor.room_end_lsn = self._store.room_end_lsn
            self._replica.tick(now_s, random.random())  # noqa: S311
            self._maybe_remove(now_s)
            self.settle()

    def _maybe_remove(self, now_s: float) -> None:
        """Remove WAL that nobody needs. Source: docs/quorum.md rule 18."""
        cluster = self.cluster
        if cluster is None or self._is_removing or now_s - self._removed_s < _REMOVE_EVERY_S:
            return
        self._removed_s = now_s
        slots = self._downstreams.slots() if self._downstreams else ()
        acceptor = self._replica.acceptor
        horizon = min((acceptor.horizon_lsn, acceptor.restart_lsn, *(slot.flush_lsn for slot in slots)))
        if segment_start(horizon, cluster.segment_size) > self._store.start_lsn:
            self._is_removing = True
            done = self._loop.run_in_executor(self._disk, self._store.remove_before, horizon)
            done.add_done_callback(self._on_removed)

    def _on_removed(self, done: asyncio.Future[int]) -> None:
        self._is_removing = False
        error = done.exception()
        if error is None:
            self._replica.acceptor.on_removed(self._store.start_lsn)
        else:
            self._fail_with(error)

    # --- peers -----------------------------------------------------------------------------------------

    def on_dialled(self, peer: str, stream: CopyStream) -> None:
        self._give_back_if_lent(self._dialled.get(peer))
        self._dialled[peer] = stream
        self._replica.proposer.on_connected(peer, self._loop.time())
        self.settle()

    def on_answer(self, peer: str, message: Message) -> None:
        self._replica.on_answer(peer, message, self._loop.time(), random.random())  # noqa: S311

    def on_hung_up(self, peer: str) -> None:
        self._give_back_if_lent(self._dialled.pop(peer, None))
        self._replica.proposer.on_disconnected(peer)
        self.settle()

    def on_accepted(self, peer: str, stream: CopyStream) -> None:
        self._give_back()  # It may be that peer's new one.
        self._accepted[peer] = stream

    def on_request(self, peer: str, message: Message) -> None:
        self._replica.on_request(peer, message, self._loop.time())

    def on_left(self, peer: str, stream: CopyStream) -> None:
        self._give_back_if_lent(stream)
        if self._accepted.get(peer) is stream:
            del self._accepted[peer]
            self._replica.on_leader_lost(peer, self._loop.time(), random.random())  # noqa: S311
            self.settle()

    @property
    def has_room(self) -> bool:
        """False while our disk is far behind what we have taken."""
        acceptor = self._replica.acceptor
        return acceptor.write_lsn - acceptor.durable_flush_lsn <= _BACKLOG_BYTES_MAX

    def pause_until_room(self, stream: Pausable) -> None:
        """Read no more of that until there is room again."""
        stream.pause()
        self._paused.append(stream)

    async def _next_work_done(self) -> None:
        self._work_done.clear()
        await self._work_done.wait()

    async def serve_peer(self, stream: CopyStream) -> None:
        """Speak the quorum's protocol on a connection that asked START_PEER; returns when it ends."""
        await peers.answer(stream, self, self._complaints)

    def introduction(self) -> Greeting:
        return self._replica.acceptor.introduction()

    def change_members(self, wanted: tuple[str, ...], contacts: tuple[Contact, ...]) -> None:
        """Begin a change, which the group carries on. Raises ChangeRefused."""
        self._replica.change_members(wanted, contacts, self._loop.time())
        self.settle()

    # --- FollowingNode ---------------------------------------------------------------------------------

    def take(self, lsn: Lsn, wal: bytes) -> None:
        """New WAL of the primary. Raises MessageRefused."""
        self._replica.on_primary_wal(lsn, wal, self._loop.time())
        acceptor = self._replica.acceptor
        term = acceptor.state.term_history.last_term
        self._recent.add(lsn, wal, term=term, stored_lsn=acceptor.durable_flush_lsn)
        self.settle()

    async def written(self, lsn: Lsn) -> None:
        """Wait until our own log is on disk up to there, and nothing is under way."""
        while self._replica.acceptor.durable_flush_lsn < lsn or self._replica.has_disk_work_out:
            await self._next_work_done()

    # --- NodeView --------------------------------------------------------------------------------------

    def attach(self, downstreams: Downstreams) -> None:
        """Whose slots and feedback count."""
        self._downstreams = downstreams
        self._note_downstreams()

    def _note_downstreams(self) -> None:
        # Before the first reply leaves: a proposer that heard of no slot would let their WAL go.
        if self._downstreams is not None:
            self._replica.acceptor.on_downstreams(self._downstreams.feedback(), self._downstreams.slots())

    @property
    def role(self) -> str:
        acceptor = self._replica.acceptor
        if not acceptor.is_member:
            return "removed" if acceptor.generation else "waiting"
        if acceptor.is_learner:
            return "learner"
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
            self._waiting += 1
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        while self.commit_lsn <= above_lsn:
                            await self._committed.wait()
            finally:
                self._waiting -= 1
        return self.commit_lsn

    def read(self, lsn: Lsn, size: int) -> bytes:
        """Up to `size` bytes of committed WAL. Raises WalRemoved, NotReady."""
        size = min(size, self.commit_lsn - lsn)
        if size <= 0:
            raise NotReady("wal is not committed yet", lsn=lsn, commit=self.commit_lsn)
        term = self.term_history.last_term
        return self._recent.read(lsn, Lsn(lsn + size), term=term, stored=self._store.read)

    def functions(self) -> Functions:
        """What an operator may call."""
        members = MemberFunctions(self, self._replica.acceptor, self._settings.members)
        return {**self._operator.functions(), **members.functions()}

    def downstream_moved(self) -> None:
        """A slot or feedback changed; the proposer hears of it with the next reply."""
        self._note_downstreams()

    def status(self) -> dict[str, object]:
        """The node's own part of `SHOW walproxy.status`, ready for JSON."""
        replica, acceptor, proposer = self._replica, self._replica.acceptor, self._replica.proposer
        state, now_s = acceptor.state, self._loop.time()
        known = addresses(state.membership, self._settings.members)
        shown: dict[str, object] = {
            "name": self.name,
            "role": self.role,
            "leader": replica.leader,
            "term": state.term,
            "generation": acceptor.generation,
            "node_id": state.node_id.hex(),
            "members": list(state.membership.everyone),
            "membership": {
                **membership_status(acceptor),
                "is_in_force": replica.proposer.is_in_force,
                "addresses": {name: without_password(text) for name, text in known.items()},
            },
            "system_id": str(state.cluster.system_id) if state.cluster else None,
            "major": state.cluster.major if state.cluster else None,
            "tli": state.term_history.last_tli,
            "term_history": [[e.term, e.tli, str(e.start_lsn)] for e in state.term_history.entries],
            "log_start_lsn": str(state.log_start_lsn),
            "start_lsn": str(self._store.start_lsn),
            "write_lsn": str(acceptor.write_lsn),
            "flush_lsn": str(acceptor.durable_flush_lsn),
            "commit_lsn": str(acceptor.commit_lsn),
            "horizon_lsn": str(acceptor.horizon_lsn),
            "sealed_lsn": str(sealed) if (sealed := state.term_history.sealed_lsn) else None,
            "appends_taken_natively": self._taken_natively,
            "wal_size_bytes": self._store.size_bytes,
            "wal_size_bytes_max": self._settings.max_wal_size_bytes,
            "upstream": {
                "state": self._follower.state,
                "error": self._follower.error,
                "primary_end_lsn": str(self._follower.primary_end_lsn),
                "tail_lsn": str(self._follower.tail_lsn),
            },
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
