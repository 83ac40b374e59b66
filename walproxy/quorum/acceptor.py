"""Acceptor: votes, takes WAL, cuts what diverged, and says what must be on disk before it answers."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from walproxy.quorum.errors import IdentityRefused, LogDamaged, MessageRefused
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import (
    Append,
    AppendReply,
    Elected,
    Feedback,
    Greeting,
    HistoryFile,
    Message,
    SlotHorizon,
    VoteReply,
    VoteRequest,
)
from walproxy.quorum.records import MakeScanner, RecordScanner
from walproxy.quorum.state import Cluster, ControlState
from walproxy.quorum.terms import common_lsn
from walproxy.wire.lsn import INVALID_LSN, Lsn

_NEVER_S = float("-inf")


@dataclass(frozen=True, slots=True)
class WalWrite:
    """Bytes to put at `lsn`, of Postgres timeline `tli`."""

    lsn: Lsn
    wal: bytes
    tli: int


@dataclass(frozen=True, slots=True)
class NewLog:
    """An empty log to begin at a segment start."""

    start_lsn: Lsn
    tli: int
    cluster: Cluster


@dataclass(frozen=True, slots=True)
class DiskWork:
    """Work for the driver, in the order of the fields, each durable before the next is begun.

    WAL does not say which term wrote it, so the control state goes first: a crash in between must not leave
    bytes of this term under the name of an older one. A cut of the log, or its beginning, is announced in the
    control state before it is done, and the announcement taken back only after (docs/quorum.md rule 10).
    `answers` leave last, when all they promise is durable.
    """

    control: ControlState | None
    new_log: NewLog | None
    cut_to_lsn: Lsn | None
    control_after_cut: ControlState | None
    histories: tuple[tuple[int, bytes], ...]
    wal: tuple[WalWrite, ...]  # Then one sync, if there are any.
    flush_lsn: Lsn  # Holds when all of the above is done.
    answers: tuple[tuple[str, Message], ...]

    @property
    def touches_disk(self) -> bool:
        return bool(self.control or self.histories or self.wal)


def _replaces(membership: Membership, ours: ControlState) -> bool:
    return membership.generation > ours.membership.generation and ours.name in membership.everyone


class Acceptor:
    """One member's votes and log.

    What its attributes say is what will be on disk once the work handed out by `ready` is done; only
    `durable_flush_lsn` and `commit_lsn` speak of what is there now. One piece of work is out at a time.

    Invariants: commit_lsn <= durable_flush_lsn; record_end_lsn <= write_lsn.

    Args:
        state: as loaded from the control file.
        record_end_lsn: where the whole records on disk end; INVALID_LSN if there is no log.
        last_record_lsn: start of the last of them; 0 if not known.
        tlis: of the history files on disk.
        leader_timeout_s: a proposer heard within this time is alive.
    """

    def __init__(
        self,
        state: ControlState,
        *,
        record_end_lsn: Lsn,
        last_record_lsn: Lsn,
        tlis: Collection[int],
        make_scanner: MakeScanner,
        leader_timeout_s: float,
    ) -> None:
        if record_end_lsn < state.commit_lsn:
            raise LogDamaged("log ends below the commit lsn", end=record_end_lsn, commit=state.commit_lsn)
        # A cut that was announced has been finished by whoever opened the log.
        self.state = replace(state, truncating_to_lsn=INVALID_LSN)
        self.write_lsn = self.record_end_lsn = self.durable_flush_lsn = record_end_lsn
        self.commit_lsn = state.commit_lsn
        self.horizon_lsn = state.horizon_lsn
        # A restart looks for the end of the log from there on: WAL from its segment on must stay.
        self.restart_lsn = state.commit_lsn
        # Set by the driver: WAL that ends beyond it does not fit our disk.
        self.room_end_lsn: Lsn | None = None
        self.leader = ""
        self.leader_heard_s = _NEVER_S
        self.feedback = Feedback()
        self.slots: tuple[SlotHorizon, ...] = ()
        self.last_record_lsn = last_record_lsn
        self._tlis = set(tlis)
        self._make_scanner = make_scanner
        self._leader_timeout_s = leader_timeout_s
        # None until the next Elected: only that says where WAL goes on.
        self._scanner: RecordScanner | None = None
        self._commit_known_lsn = state.commit_lsn
        self._stored_lsn = record_end_lsn  # Where the store will write next, all work handed out done.
        self._is_dirty = state.truncating_to_lsn != INVALID_LSN
        self._saved_commit_lsn = state.commit_lsn
        self._new_log: NewLog | None = None
        self._cut_to_lsn: Lsn | None = None
        self._histories: list[tuple[int, bytes]] = []
        self._wal: list[WalWrite] = []
        self._answers: list[tuple[str, Message]] = []
        self._owes_append_reply: dict[str, None] = {}
        self._answered_s = _NEVER_S

    # --- what is known ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def generation(self) -> int:
        return self.state.membership.generation

    @property
    def last_log_term(self) -> int:
        """Term of the last WAL held (docs/quorum.md rule 5)."""
        return self.state.term_history.up_to(self.record_end_lsn).last_term

    def hears_leader(self, now_s: float) -> bool:
        """A proposer is alive, as far as we know."""
        return self.leader == self.name or now_s - self.leader_heard_s < self._leader_timeout_s

    def greeting(self) -> Greeting:
        """Who we are and where our log will stand once the work handed out is done."""
        state = self.state
        return Greeting(
            generation=self.generation,
            name=state.name,
            node_id=state.node_id,
            membership=state.membership,
            term=state.term,
            flush_lsn=self.record_end_lsn,
            commit_lsn=self.commit_lsn,
            log_start_lsn=state.log_start_lsn,
            local_start_lsn=state.local_start_lsn,
            term_history=state.term_history.up_to(self.record_end_lsn),
            cluster=state.cluster,
        )

    def introduction(self) -> Greeting:
        """A greeting that leaves at once, work or no work: it names only what is durable now."""
        flush_lsn = min(self.record_end_lsn, self.durable_flush_lsn)
        history = self.state.term_history.up_to(flush_lsn)
        return replace(self.greeting(), flush_lsn=flush_lsn, term_history=history)

    # --- messages --------------------------------------------------------------------------------------

    def on_greeting(self, peer: str, message: Greeting) -> None:
        """A proposer, or one who may become it, says who it is and asks where we stand."""
        self.check_identity(peer, message)
        self._answers.append((peer, self.greeting()))

    def check_identity(self, peer: str, message: Greeting) -> None:
        """Refuse who is not the member it says; remember who it was. Source: docs/quorum.md rule 2.

        Raises:
            IdentityRefused
        """
        ours = self.state
        known = dict(ours.peer_ids)
        if message.name != peer:
            raise IdentityRefused("peer gives another name", peer=peer, name=message.name)
        if _replaces(message.membership, ours):
            ours = replace(ours, membership=message.membership)
        elif message.membership.generation == self.generation and message.membership != ours.membership:
            raise IdentityRefused("peer has other members", peer=peer, theirs=message.membership.members)
        if peer not in ours.membership.everyone:
            raise IdentityRefused("peer is not a member", peer=peer, members=ours.membership.everyone)
        if known.setdefault(peer, message.node_id) != message.node_id:
            raise IdentityRefused("peer has lost its disk: it cannot come back under its old name", peer=peer)
        if message.cluster and ours.cluster and message.cluster != ours.cluster:
            raise IdentityRefused(
                "peer holds the wal of another cluster",
                peer=peer,
                system_id=message.cluster.system_id,
                ours=ours.cluster.system_id,
            )
        ours = replace(ours, peer_ids=tuple(sorted(known.items())))
        if ours != self.state:
            self.state = ours
            self._is_dirty = True

    def adopt(self, membership: Membership) -> None:
        """Take over a membership of a higher generation that we belong to. Source: docs/quorum.md rule 19."""
        if _replaces(membership, self.state):
            self.state = replace(self.state, membership=membership)
            self._is_dirty = True

    def on_vote_request(self, peer: str, message: VoteRequest, now_s: float) -> None:
        """Vote, at most once a term, for a log not behind ours. Source: docs/quorum.md rules 3 to 7."""
        self._check_generation(peer, message)
        why = self._why_no_vote(peer, message, now_s)
        if not why and not message.is_pre and message.term > self.state.term:
            self.state = replace(self.state, term=message.term, voted_for=peer)
            self._is_dirty = True
            self.leader, self.leader_heard_s = "", _NEVER_S
        reply = VoteReply(
            generation=self.generation,
            asked_term=message.term,
            is_pre=message.is_pre,
            is_granted=not why,
            term=self.state.term,
            last_log_term=self.last_log_term,
            flush_lsn=self.record_end_lsn,
            why=why,
        )
        self._answers.append((peer, reply))

    def _why_no_vote(self, peer: str, message: VoteRequest, now_s: float) -> str:
        ours = self.state
        if message.term < ours.term:
            return "term is past"
        if message.term == ours.term and (message.is_pre or ours.voted_for != peer):
            return "vote of this term is given"
        if (message.last_log_term, message.flush_lsn) < (self.last_log_term, self.record_end_lsn):
            return "log is behind"
        if message.is_pre and self.leader != peer and self.hears_leader(now_s):
            return "proposer is alive"
        return ""

    def on_elected(self, peer: str, message: Elected, now_s: float) -> None:
        """Follow a proposer: cut our log to where it agrees. Source: docs/quorum.md rules 8 to 10."""
        self._check_generation(peer, message)
        ours = self.state
        if message.term < ours.term:
            self._owes_append_reply[peer] = None
            return
        if ours.cluster and message.cluster != ours.cluster:
            raise IdentityRefused("elected for another cluster", peer=peer, theirs=message.cluster.system_id)
        if ours.term_history.last_term == message.term and not message.term_history.extends(
            ours.term_history
        ):
            if ours.term_history.extends(message.term_history):
                return  # An old one, overtaken by its successor.
            raise MessageRefused("two histories of one term", peer=peer, term=message.term)
        common = common_lsn(message.term_history, ours.term_history, self.record_end_lsn)
        begins_anew = common == INVALID_LSN
        if begins_anew:
            self._check_new_start(peer, message)
        elif common != message.start_lsn:
            # Our log moved since the proposer last heard of it: let it ask again.
            raise MessageRefused(
                "elected for another end of the log", peer=peer, start=message.start_lsn, ours=common
            )
        elif common < self.commit_lsn:
            raise MessageRefused(
                "committed wal would be cut", peer=peer, to=common, commit=self.commit_lsn, term=message.term
            )
        self._follow(message)
        if begins_anew:
            self._begin_log(message)
        else:
            self._cut(message.start_lsn)
        self.leader, self.leader_heard_s = peer, now_s
        self._owes_append_reply[peer] = None

    def _check_new_start(self, peer: str, message: Elected) -> None:
        """A log begins at the group's start or, for a later member, at a committed segment start."""
        if self.commit_lsn != INVALID_LSN:
            raise MessageRefused("nothing in common with committed wal", peer=peer, commit=self.commit_lsn)
        start, committed_from = message.start_lsn, message.start_lsn <= message.commit_lsn
        if start % message.cluster.segment_size or not (start == message.log_start_lsn or committed_from):
            raise MessageRefused(
                "log cannot begin there", peer=peer, start=start, log_start=message.log_start_lsn
            )

    def _follow(self, message: Elected) -> None:
        ours = self.state
        self.state = replace(
            ours,
            term=message.term,
            voted_for=ours.voted_for if message.term == ours.term else "",
            term_history=message.term_history,
            cluster=message.cluster,
            log_start_lsn=message.log_start_lsn,
        )
        self._is_dirty = self._is_dirty or self.state != ours
        self._commit_known_lsn = max(self._commit_known_lsn, message.commit_lsn)

    def _begin_log(self, message: Elected) -> None:
        start = message.start_lsn
        self.state = replace(self.state, local_start_lsn=start)
        self._new_log = NewLog(start, message.term_history.tli_at(start), message.cluster)
        self._cut_to_lsn = None
        self._wal.clear()
        self.last_record_lsn = INVALID_LSN
        self.durable_flush_lsn = INVALID_LSN
        self._stored_lsn = self.write_lsn = self.record_end_lsn = start
        self._scanner = self._make_scanner(start, prev_lsn=INVALID_LSN, cluster=message.cluster)

    def _cut(self, to_lsn: Lsn) -> None:
        """Drop all WAL from `to_lsn`, a record end, on; begin to scan there."""
        if to_lsn < self.record_end_lsn:
            self.last_record_lsn = INVALID_LSN
        if to_lsn < self.write_lsn:
            self._wal = [
                WalWrite(write.lsn, write.wal[: to_lsn - write.lsn], write.tli)
                for write in self._wal
                if write.lsn < to_lsn
            ]
            if to_lsn < self._stored_lsn:
                self._stored_lsn = self._cut_to_lsn = to_lsn
            self.write_lsn = self.record_end_lsn = to_lsn
            self.durable_flush_lsn = min(self.durable_flush_lsn, to_lsn)
        cluster = self.state.cluster
        assert cluster is not None
        self._scanner = self._make_scanner(to_lsn, prev_lsn=self.last_record_lsn, cluster=cluster)

    def on_append(self, peer: str, message: Append, now_s: float) -> None:
        """Take WAL of the term we follow. Source: docs/quorum.md rules 11 and 21.

        Raises:
            MessageRefused: not where our log ends, or not WAL; nothing of it is taken.
        """
        self._check_generation(peer, message)
        ours = self.state
        if message.term < ours.term:
            self._owes_append_reply[peer] = None
            return
        if message.term > ours.term or ours.term_history.last_term != message.term:
            raise MessageRefused("append before elected", peer=peer, term=message.term, ours=ours.term)
        if message.start_lsn != self.write_lsn:
            raise MessageRefused(
                "append is not at the end of the log", peer=peer, start=message.start_lsn, ours=self.write_lsn
            )
        if message.wal:
            if message.tli != ours.term_history.tli_at(message.start_lsn):
                raise MessageRefused(
                    "append of a timeline that was not announced", peer=peer, tli=message.tli
                )
            self._check_room(peer, message)
            self._take(peer, message)
        self.leader, self.leader_heard_s = peer, now_s
        self._commit_known_lsn = max(self._commit_known_lsn, message.commit_lsn)
        self.horizon_lsn = message.horizon_lsn
        self._maybe_commit()
        # An Append without WAL is a heartbeat or news of a commit: of these not each needs an answer.
        if message.wal or now_s - self._answered_s >= self._leader_timeout_s / 10:
            self._answered_s = now_s
            self._owes_append_reply[peer] = None

    def _check_room(self, peer: str, message: Append) -> None:
        """Source: docs/quorum.md rule 18."""
        room_end = self.room_end_lsn
        if room_end is not None and message.start_lsn + len(message.wal) > room_end:
            raise MessageRefused(
                "log is full: let the consumer that holds it go on, drop its slot, or raise max_wal_size_bytes",
                peer=peer,
                room_end=room_end,
            )

    def _take(self, peer: str, message: Append) -> None:
        scanner, self._scanner = self._scanner, None
        if scanner is None:
            raise MessageRefused("append before elected", peer=peer, term=message.term)
        scanner.feed(message.wal)  # If it raises, this log goes on with the next Elected only.
        self._scanner = scanner
        self._wal.append(
            WalWrite(message.start_lsn, message.wal, self.state.term_history.tli_at(message.start_lsn))
        )
        self.write_lsn = Lsn(self.write_lsn + len(message.wal))
        self.record_end_lsn = Lsn(scanner.record_end_lsn)
        self.last_record_lsn = Lsn(scanner.last_record_lsn) or self.last_record_lsn

    def on_history(self, peer: str, message: HistoryFile) -> None:
        """Keep a timeline history file. Source: docs/quorum.md rule 17."""
        self._check_generation(peer, message)
        if message.term == self.state.term_history.last_term and message.tli not in self._tlis:
            self._tlis.add(message.tli)
            self._histories.append((message.tli, message.content))

    def on_leader_lost(self, peer: str) -> None:
        """The connection on which that peer spoke to us ended."""
        if self.leader == peer:
            self.leader, self.leader_heard_s = "", _NEVER_S

    def on_removed(self, start_lsn: Lsn) -> None:
        """WAL before `start_lsn` is no longer on our disk."""
        self.state = replace(self.state, local_start_lsn=start_lsn)

    def on_downstreams(self, feedback: Feedback, slots: tuple[SlotHorizon, ...]) -> None:
        """What our downstreams need; goes with the next reply."""
        self.feedback, self.slots = feedback, slots

    def _check_generation(self, peer: str, message: Message) -> None:
        if message.generation != self.generation:
            raise MessageRefused(
                "membership generation is not ours",
                peer=peer,
                theirs=message.generation,
                ours=self.generation,
            )

    # --- work ------------------------------------------------------------------------------------------

    def state_to_save(self) -> ControlState:
        """The control state with the positions of now, to be saved when no work is out."""
        return replace(self.state, commit_lsn=self.commit_lsn, horizon_lsn=self.horizon_lsn)

    def ready(self) -> DiskWork | None:
        """Hand over all work since the last call; None if there is none.

        The next call only after `on_done` of this one.
        """
        cluster = self.state.cluster
        if cluster and self.commit_lsn >= self._saved_commit_lsn + cluster.segment_size:
            self._is_dirty = True
        needs_save = self._is_dirty
        if not (needs_save or self._wal or self._answers or self._owes_append_reply or self._histories):
            return None
        cut_to = self._new_log.start_lsn if self._new_log else self._cut_to_lsn
        control = after = None
        if needs_save or cut_to is not None:
            after = self.state_to_save()
            control = replace(after, truncating_to_lsn=cut_to or INVALID_LSN)
            self._saved_commit_lsn = self.commit_lsn
        work = DiskWork(
            control=control,
            new_log=self._new_log,
            cut_to_lsn=self._cut_to_lsn,
            control_after_cut=None if cut_to is None else after,
            histories=tuple(self._histories),
            wal=tuple(self._wal),
            flush_lsn=self.record_end_lsn,
            answers=(*self._answers, *((peer, self._append_reply()) for peer in self._owes_append_reply)),
        )
        self._stored_lsn = self.write_lsn
        self._is_dirty, self._new_log, self._cut_to_lsn = False, None, None
        self._histories, self._wal, self._answers, self._owes_append_reply = [], [], [], {}
        return work

    def _append_reply(self) -> AppendReply:
        has_elected = self.state.term_history.last_term == self.state.term
        return AppendReply(
            generation=self.generation,
            term=self.state.term,
            flush_lsn=self.record_end_lsn if has_elected else INVALID_LSN,
            write_lsn=self.write_lsn,
            commit_lsn=self.commit_lsn,
            feedback=self.feedback,
            slots=self.slots,
        )

    def on_done(self, work: DiskWork) -> bool:
        """All of `work` is durable. Gives True if the commit LSN moved."""
        if work.control:
            self.restart_lsn = work.control.commit_lsn
        begins_anew, cut = self._new_log is not None, self._cut_to_lsn
        if not begins_anew:
            self.durable_flush_lsn = work.flush_lsn if cut is None else min(work.flush_lsn, cut)
        return self._maybe_commit()

    def on_commit(self, commit_lsn: Lsn) -> bool:
        """The proposer of the term we follow, on this very node, says how far the log is committed."""
        self._commit_known_lsn = max(self._commit_known_lsn, commit_lsn)
        return self._maybe_commit()

    def _maybe_commit(self) -> bool:
        """Raise the commit LSN to what is known and durable here. Source: docs/quorum.md rule 13."""
        reached = min(self._commit_known_lsn, self.durable_flush_lsn)
        moved = reached > self.commit_lsn
        if moved:
            self.commit_lsn = reached
        return moved
