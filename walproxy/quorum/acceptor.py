"""Acceptor: votes, takes WAL, cuts what diverged, and says what must be on disk before it answers."""

from dataclasses import dataclass, replace
from typing import Final

from walcore._native import judge_append
from walproxy.quorum.errors import IdentityRefused, LogDamaged, MessageRefused, NotAMember
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
    StandNow,
    VoteReply,
    VoteRequest,
)
from walproxy.quorum.records import MakeScanner, RecordScanner
from walproxy.quorum.state import Cluster, ControlState, may_adopt, with_membership
from walproxy.quorum.terms import common_lsn
from walproxy.wire.lsn import INVALID_LSN, Lsn

_NEVER_S = float("-inf")
_LSN_MAX: Final = (1 << 64) - 1


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


@dataclass(frozen=True, slots=True)
class SteadyLog:
    """The end of a log at rest: who follows its records, and the Postgres timeline that goes on there."""

    scanner: RecordScanner
    tli: int


class Acceptor:
    """One member's votes and log.

    What its attributes say is what will be on disk once the work handed out by `ready` is done; only
    `durable_flush_lsn` and `commit_lsn` speak of what is there now. One piece of work is out at a time.

    Invariants: commit_lsn <= durable_flush_lsn; record_end_lsn <= write_lsn.

    Args:
        state: as loaded from the control file.
        record_end_lsn: where the whole records on disk end; INVALID_LSN if there is no log.
        last_record_lsn: start of the last of them; 0 if not known.
        leader_timeout_s: a proposer heard within this time is alive.
    """

    def __init__(
        self,
        state: ControlState,
        *,
        record_end_lsn: Lsn,
        last_record_lsn: Lsn,
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
        # Of the membership that is on disk.
        self.durable_generation = state.membership.generation
        self.leader = ""
        self.leader_heard_s = _NEVER_S
        self.feedback = Feedback()
        self.slots: tuple[SlotHorizon, ...] = ()
        self.last_record_lsn = last_record_lsn
        # History files of now: one on disk may be of a promotion that came to nothing.
        self._kept: dict[int, bytes] = {}
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
    def is_member(self) -> bool:
        """We belong to the group: were added to it, and not removed since. Source: docs/quorum.md rule 19."""
        return self.state.membership.includes(self.name, self.state.node_id)

    @property
    def is_voter(self) -> bool:
        return self.is_member and self.name in self.state.membership.voters

    @property
    def is_learner(self) -> bool:
        """We follow without a vote, until we have caught up. Source: docs/quorum.md rule 20."""
        return self.is_member and self.name in self.state.membership.learners

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
        """Refuse who is not the member it says; remember who it was. Source: docs/quorum.md rules 2 and 19.

        Raises:
            IdentityRefused, NotAMember
        """
        ours = self.state
        theirs, known = message.membership, dict(ours.peer_ids)
        if message.name != peer:
            raise IdentityRefused("peer gives another name", peer=peer, name=message.name)
        if message.cluster and ours.cluster and message.cluster != ours.cluster:
            raise IdentityRefused(
                "peer holds the wal of another cluster",
                peer=peer,
                system_id=message.cluster.system_id,
                ours=ours.cluster.system_id,
            )
        if theirs.generation == self.generation and theirs != ours.membership:
            raise IdentityRefused("peer has other members", peer=peer, theirs=theirs.members)
        if theirs.generation > self.generation and may_adopt(ours, peer, message.node_id, theirs):
            self.adopt(theirs)
            ours, known = self.state, dict(self.state.peer_ids)
        if peer not in ours.membership.everyone:
            raise NotAMember("peer is not a member", peer=peer, members=ours.membership.everyone)
        if known.setdefault(peer, message.node_id) != message.node_id:
            raise NotAMember(
                "peer has lost its disk: it comes back with `walproxy member replace` only", peer=peer
            )
        ours = replace(ours, peer_ids=tuple(sorted(known.items())))
        if ours != self.state:
            self.state = ours
            self._is_dirty = True

    def adopt(self, membership: Membership) -> None:
        """Take over a membership of a higher generation. Source: docs/quorum.md rule 19."""
        if membership.generation > self.generation:
            self.state = with_membership(self.state, membership)
            self._is_dirty = True

    def on_vote_request(self, peer: str, message: VoteRequest, now_s: float) -> bool:
        """Vote, at most once a term, for a log not behind ours; gives True if a vote of a new term was given.

        Source: docs/quorum.md rules 3 to 7.
        """
        self._check_generation(peer, message)
        why = self._why_no_vote(peer, message, now_s)
        is_new = not why and not message.is_pre and message.term > self.state.term
        if is_new:
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
        return is_new

    def _why_no_vote(self, peer: str, message: VoteRequest, now_s: float) -> str:
        ours = self.state
        if peer not in ours.membership.voters:
            return "no voter"
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
        # What a learner lacks may be let go meanwhile: it begins again.
        begins_anew = common == INVALID_LSN or (self.is_learner and message.start_lsn > self.record_end_lsn)
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
        """A log begins at the group's start or, for a later member, at a committed segment start.

        Source: docs/quorum.md rule 18.
        """
        start, committed_from = message.start_lsn, message.start_lsn <= message.commit_lsn
        may_let_go = self.is_learner and start >= self.commit_lsn
        if self.commit_lsn != INVALID_LSN and not may_let_go:
            raise MessageRefused("nothing in common with committed wal", peer=peer, commit=self.commit_lsn)
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
        # Of one that begins again, what was committed stays so: it is in the logs of those that have a vote.
        self.durable_flush_lsn = min(self.durable_flush_lsn, self.commit_lsn)
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
        """Take WAL of the term we follow. Source: docs/quorum.md rules 11, 21 and 25.

        Raises:
            MessageRefused: not where our log ends, or not WAL; nothing of it is taken.
        """
        self._check_generation(peer, message)
        ours, room_end = self.state, self.room_end_lsn
        # The native lane asks the same. What is refused beyond this, `steady` must keep from the lane.
        verdict = judge_append(
            self.generation,
            ours.term,
            ours.term_history.last_term,
            ours.term_history.tli_at(message.start_lsn),
            self.write_lsn,
            _LSN_MAX if room_end is None else room_end,
            message.generation,
            message.term,
            message.tli,
            message.start_lsn,
            len(message.wal),
        )
        if verdict == "past":
            self._owes_append_reply[peer] = None
            return
        if verdict == "not elected":
            raise MessageRefused("append before elected", peer=peer, term=message.term, ours=ours.term)
        if verdict == "elsewhere":
            raise MessageRefused(
                "append is not at the end of the log", peer=peer, start=message.start_lsn, ours=self.write_lsn
            )
        if verdict == "timeline":
            raise MessageRefused("append of a timeline that was not announced", peer=peer, tli=message.tli)
        if verdict == "room":
            raise MessageRefused(
                "log is full: let the consumer that holds it go on, drop its slot, or raise max_wal_size_bytes",
                peer=peer,
                room_end=room_end,
            )
        if message.wal:
            sealed = ours.term_history.sealed_lsn
            if sealed and message.start_lsn + len(message.wal) > sealed:
                raise MessageRefused("append beyond the sealed end of the log", peer=peer, sealed=sealed)
            self._take(peer, message)
        self.leader, self.leader_heard_s = peer, now_s
        self._commit_known_lsn = max(self._commit_known_lsn, message.commit_lsn)
        self.horizon_lsn = message.horizon_lsn
        self._maybe_commit()
        # An Append without WAL is a heartbeat or news of a commit: of these not each needs an answer.
        if message.wal or now_s - self._answered_s >= self._leader_timeout_s / 10:
            self._answered_s = now_s
            self._owes_append_reply[peer] = None

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

    # --- the native lane -------------------------------------------------------------------------------

    def steady(self) -> SteadyLog | None:
        """What the native lane goes on with; None unless all is at rest: nothing to write, say or save.

        Source: docs/quorum.md rule 22.
        """
        history = self.state.term_history
        is_ours = history.last_term == self.state.term and self._scanner is not None
        waits = self._is_dirty or self._wal or self._answers or self._owes_append_reply or self._histories
        # One Append is of one timeline: the next one may be announced, and not be reached yet.
        is_announced = bool(history.entries) and history.entries[-1].start_lsn > self.write_lsn
        # Where a sealed log ends is for the core to watch (rule 25).
        is_sealed = bool(history.sealed_lsn)
        if waits or is_announced or is_sealed or not is_ours or self.write_lsn != self._stored_lsn:
            return None
        assert self._scanner is not None
        return SteadyLog(self._scanner, history.last_tli)

    def on_taken(
        self,
        write_lsn: Lsn,
        flush_lsn: Lsn,
        last_record_lsn: Lsn,
        *,
        commit_lsn: Lsn,
        horizon_lsn: Lsn,
        now_s: float,
    ) -> bool:
        """The native lane took Appends of our leader, wrote, synced and answered. Gives True if the commit LSN moved.

        `write_lsn` and `flush_lsn`: where the log and its whole records end, all durable. `last_record_lsn`: start of
        the last of them, INVALID_LSN if none came. `commit_lsn` and `horizon_lsn` are as the last Append said.
        """
        self.write_lsn = self._stored_lsn = write_lsn
        self.record_end_lsn = self.durable_flush_lsn = flush_lsn
        self.last_record_lsn = last_record_lsn or self.last_record_lsn
        self.leader_heard_s = self._answered_s = now_s
        self._commit_known_lsn = max(self._commit_known_lsn, commit_lsn)
        self.horizon_lsn = horizon_lsn
        return self._maybe_commit()

    def on_damage(self) -> None:
        """What the native lane was to take is not WAL: this log goes on with the next Elected only."""
        self._scanner = None

    def on_history(self, peer: str, message: HistoryFile) -> None:
        """Keep a timeline history file. Source: docs/quorum.md rule 17."""
        self._check_generation(peer, message)
        if (
            message.term == self.state.term_history.last_term
            and self._kept.get(message.tli) != message.content
        ):
            self._kept[message.tli] = message.content
            self._histories.append((message.tli, message.content))

    def check_stand_now(self, peer: str, message: StandNow) -> None:
        """Only the proposer that we follow may say so. Raises MessageRefused."""
        self._check_generation(peer, message)
        if self.leader != peer or message.term != self.state.term:
            raise MessageRefused("not told by the proposer to stand", peer=peer, term=message.term)

    def on_leader_lost(self, peer: str) -> None:
        """The connection on which that peer spoke to us ended."""
        if self.leader == peer:
            self.leader, self.leader_heard_s = "", _NEVER_S

    def on_removed(self, start_lsn: Lsn) -> None:
        """WAL before `start_lsn` is no longer on our disk. The log may have been begun anew, later, meanwhile."""
        self.state = replace(self.state, local_start_lsn=max(start_lsn, self.state.local_start_lsn))

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
            answers=(*self._answers, *((peer, self.append_reply()) for peer in self._owes_append_reply)),
        )
        self._stored_lsn = self.write_lsn
        self._is_dirty, self._new_log, self._cut_to_lsn = False, None, None
        self._histories, self._wal, self._answers, self._owes_append_reply = [], [], [], {}
        return work

    def append_reply(self) -> AppendReply:
        """How far we are, once the work handed out is done."""
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
            self.durable_generation = work.control.membership.generation
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
