"""The mutants: for each numbered rule of docs/quorum.md, the program without it."""

from dataclasses import dataclass

ACCEPTOR = "walproxy.quorum.acceptor"
PROPOSER = "walproxy.quorum.proposer"
COMMIT = "walproxy.quorum.commit"
MEMBERSHIP = "walproxy.quorum.membership"
MESSAGES = "walproxy.quorum.messages"
PRIMARY = "walproxy.quorum.primary"
RETENTION = "walproxy.quorum.retention"
TERMS = "walproxy.quorum.terms"
OPENING = "walproxy.opening"
STORE = "walproxy.store.wal"
# What a driver has to keep, as the simulation's driver does it.
SIM_NODE = "tests.sim.node"
SIM_WORLD = "tests.sim.world"
SIM_DISK = "tests.sim.disk"


@dataclass(frozen=True)
class Mutant:
    """`without` says what is missing; `old`, found once in the module's source, becomes `new`."""

    rule: int
    without: str
    module: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        1,
        "messages of another generation refused",
        ACCEPTOR,
        "if message.generation != self.generation:",
        "if False:",
    ),
    Mutant(
        1,
        "other protocol versions refused",
        MESSAGES,
        "if not OLDEST_VERSION <= version <= PROTOCOL_VERSION:",
        "if False:",
    ),
    Mutant(
        2,
        "a member with another node id refused",
        ACCEPTOR,
        "if known.setdefault(peer, message.node_id) != message.node_id:",
        "if False:",
    ),
    Mutant(
        2,
        "node ids kept on disk",
        ACCEPTOR,
        "ours = replace(ours, peer_ids=tuple(sorted(known.items())))",
        "pass",
    ),
    Mutant(
        3,
        "the vote on disk before it leaves",
        ACCEPTOR,
        "voted_for=peer)\n            self._is_dirty = True",
        "voted_for=peer)",
    ),
    Mutant(
        3,
        "one vote a term",
        ACCEPTOR,
        "if message.term == ours.term and (message.is_pre or ours.voted_for != peer):",
        "if message.term == ours.term and message.is_pre:",
    ),
    Mutant(3, "lower terms refused a vote", ACCEPTOR, 'return "term is past"', "pass"),
    Mutant(
        4,
        "pre-votes refused while a proposer is alive",
        ACCEPTOR,
        "if message.is_pre and self.leader != peer and self.hears_leader(now_s):",
        "if False:",
    ),
    Mutant(
        4,
        "the pre-vote",
        PROPOSER,
        "self._request_votes((*self.others, self.name), is_pre=True)",
        "self.role = Role.STANDING\n        self._request_votes((self.name,), is_pre=False)",
    ),
    Mutant(
        5,
        "the entry of a term counted as a record of length zero",
        TERMS,
        "tuple(entry for entry in self.entries if entry.start_lsn <= end_lsn)",
        "tuple(entry for entry in self.entries if entry.start_lsn < end_lsn)",
    ),
    Mutant(
        5,
        "the term of the last WAL held: the newest term known stands in for it",
        ACCEPTOR,
        "return self.state.term_history.up_to(self.record_end_lsn).last_term",
        "return self.state.term",
    ),
    Mutant(
        6,
        "the own vote before others are asked",
        PROPOSER,
        "self._request_votes((self.name,), is_pre=False)\n        elif self.name in self._granted:",
        "self._granted.add(self.name)\n            self._request_votes(self.others, is_pre=False)\n        else:",
    ),
    Mutant(
        6,
        "the flush before the vote: answers do not wait for the disk (driver)",
        SIM_WORLD,
        "                self._work(node, node.life, ready.disk, disk_steps(node.disk, ready.disk))\n",
        "                for to, answer in ready.disk.answers:\n"
        "                    if to != node.name:\n"
        "                        self._send(node, to, answer, is_request=False)\n"
        "                self._work(node, node.life, ready.disk, disk_steps(node.disk, ready.disk))\n",
    ),
    Mutant(7, "logs that are behind refused a vote", ACCEPTOR, 'return "log is behind"', "pass"),
    Mutant(
        7,
        "the term of the last WAL in the comparison",
        ACCEPTOR,
        "if (message.last_log_term, message.flush_lsn) < (self.last_log_term, self.record_end_lsn):",
        "if message.flush_lsn < self.record_end_lsn:",
    ),
    Mutant(
        8,
        "the winner's history cut at the end of its log",
        PROPOSER,
        "held, seal = history.up_to(start)",
        "held, seal = TermHistory(history.entries[:1])",
    ),
    Mutant(
        8,
        "the refusal of two histories of one term",
        ACCEPTOR,
        'raise MessageRefused("two histories of one term", peer=peer, term=message.term)',
        "pass",
    ),
    Mutant(
        9,
        "the leader's next entry as a bound",
        TERMS,
        "if same < len(leader.entries):",
        "if False:",
    ),
    Mutant(
        9,
        "the other log's next entry as a bound",
        TERMS,
        "if same < len(held.entries):",
        "if False:",
    ),
    Mutant(
        10,
        "the acceptor's own look at the common point",
        ACCEPTOR,
        "elif common != message.start_lsn:",
        "elif False:",
    ),
    Mutant(
        10,
        "no cut below the commit LSN",
        ACCEPTOR,
        "elif common < self.commit_lsn:",
        "elif False:",
    ),
    Mutant(
        10,
        "the announcement of a cut",
        ACCEPTOR,
        "control = replace(after, truncating_to_lsn=cut_to or INVALID_LSN)",
        "control = after",
    ),
    Mutant(
        11,
        "appends begin where the log ends",
        ACCEPTOR,
        'if verdict == "elsewhere":',
        "if False:",
    ),
    Mutant(
        11,
        "appends only after the Elected of their term",
        ACCEPTOR,
        'if verdict == "not elected":',
        "if False:",
    ),
    Mutant(
        11,
        "appends of a lower term not taken",
        ACCEPTOR,
        'if verdict == "past":',
        "if False:",
    ),
    Mutant(
        11,
        "no more WAL after damaged WAL",
        ACCEPTOR,
        "scanner, self._scanner = self._scanner, None",
        "scanner = self._scanner",
    ),
    Mutant(
        12,
        "counting from the start of the own term only",
        COMMIT,
        "return reached if reached >= term_start_lsn else INVALID_LSN",
        "return reached",
    ),
    Mutant(
        12,
        "counting those only that took the Elected",
        ACCEPTOR,
        "flush_lsn=self.record_end_lsn if has_elected else INVALID_LSN,",
        "flush_lsn=self.record_end_lsn,",
    ),
    Mutant(
        12,
        "the majority: one less is enough",
        MEMBERSHIP,
        "return count // 2 + 1",
        "return (count + 1) // 2 - 1 or 1",
    ),
    Mutant(
        13,
        "the own disk as a bound of the commit LSN",
        ACCEPTOR,
        "reached = min(self._commit_known_lsn, self.durable_flush_lsn)",
        "reached = min(self._commit_known_lsn, self.record_end_lsn)",
    ),
    # `reached > self.commit_lsn` in `_maybe_commit` may go: what is known never falls, and what is durable falls only
    # by a cut, which rule 10 stops at the commit LSN, so that `reached` is never less.
    Mutant(
        13,
        "only forward: the commit LSN of each Append taken as it comes",
        ACCEPTOR,
        "self._commit_known_lsn = max(self._commit_known_lsn, message.commit_lsn)\n"
        "        self.horizon_lsn = message.horizon_lsn\n"
        "        self._maybe_commit()",
        "self._commit_known_lsn = message.commit_lsn\n"
        "        self.horizon_lsn = message.horizon_lsn\n"
        "        self.commit_lsn = min(self._commit_known_lsn, self.durable_flush_lsn)",
    ),
    Mutant(
        13,
        "only forward: a proposer counts anew when the membership changes",
        PROPOSER,
        "if reached <= self.commit_lsn:",
        "if reached == self.commit_lsn:",
    ),
    Mutant(
        13,
        "regard for a cut that came meanwhile",
        ACCEPTOR,
        "work.flush_lsn if cut is None else min(work.flush_lsn, cut)",
        "work.flush_lsn",
    ),
    Mutant(
        14,
        "stepping aside without a majority",
        PROPOSER,
        "elif now_s - self._quorum_s >= timeout_s:",
        "elif False:",
    ),
    Mutant(
        14,
        "stepping aside for a higher term",
        PROPOSER,
        "if is_ours and message.term > self.term:",
        "if False:",
    ),
    Mutant(
        14,
        "greeting again who does not follow",
        PROPOSER,
        "elif peer.is_connected and is_silent:",
        "elif False:",
    ),
    Mutant(
        15,
        "the beginning at a segment's start",
        PRIMARY,
        "start = segment_start(primary.slot_restart_lsn, primary.cluster.segment_size)",
        "start = primary.slot_restart_lsn",
    ),
    Mutant(16, "a primary that is behind refused", PRIMARY, "if primary.flush_lsn < end_lsn:", "if False:"),
    Mutant(16, "a primary that left too early refused", PRIMARY, "if left_at < end_lsn:", "if False:"),
    Mutant(16, "the bytes of the overlap compared", PRIMARY, "if wal[: len(ours)] != ours:", "if False:"),
    Mutant(
        17,
        "timelines begin where the log ends",
        PROPOSER,
        "if self.role is not Role.PROPOSING or switch_lsn != self._log.write_lsn:",
        "if False:",
    ),
    Mutant(
        17,
        "WAL of a timeline that was not announced refused",
        ACCEPTOR,
        'if verdict == "timeline":',
        "if False:",
    ),
    Mutant(
        17,
        "history files sent to all",
        PROPOSER,
        "for name in (self.name, *self.others):\n            self._outbox",
        "for name in (self.name,):\n            self._outbox",
    ),
    Mutant(
        18,
        "regard for what members lack",
        PROPOSER,
        "needed = [self.peer(name).held_lsn for name in self.others if name not in unheeded]",
        "needed = []",
    ),
    Mutant(
        18,
        "regard for slots",
        RETENTION,
        "furthest[slot.name] = max(furthest.get(slot.name, INVALID_LSN), slot.flush_lsn)",
        "pass",
    ),
    Mutant(
        18,
        "a full log refuses WAL",
        ACCEPTOR,
        'if verdict == "room":',
        "if False:",
    ),
    Mutant(
        18,
        "the true beginning of the log after a start",
        OPENING,
        "acceptor.on_removed(store.start_lsn)",
        "pass",
    ),
    Mutant(
        19,
        "the higher generation replaces the lower",
        ACCEPTOR,
        "if membership.generation > self.generation:",
        "if membership.generation != self.generation:",
    ),
    Mutant(
        20,
        "a majority of both sets of votes",
        MEMBERSHIP,
        "return all(sum(name in names for name in members)",
        "return any(sum(name in names for name in members)",
    ),
    Mutant(
        20,
        "a majority of both sets for the commit LSN",
        COMMIT,
        "for members in membership.sets",
        "for members in membership.sets[:1]",
    ),
    Mutant(
        21,
        "positions only at ends of records",
        ACCEPTOR,
        "self.record_end_lsn = Lsn(scanner.record_end_lsn)",
        "self.record_end_lsn = self.write_lsn",
    ),
    Mutant(
        21,
        "cutting parts of records at a new connection",
        PROPOSER,
        "if self._log.write_lsn != self._log.record_end_lsn:",
        "if False:",
    ),
    Mutant(
        22,
        "the control state before the WAL (driver)",
        SIM_NODE,
        "    if work.control:\n        steps.append(partial(disk.save, work.control))\n",
        "",
    ),
    Mutant(
        22,
        "the sync before the answers (driver)",
        SIM_NODE,
        "        steps.append(disk.sync)",
        "        pass",
    ),
    Mutant(23, "the end at a failed write or sync", STORE, "self._is_poisoned = True", "pass"),
    Mutant(
        24,
        "the refusal to start below the commit LSN",
        ACCEPTOR,
        "if record_end_lsn < state.commit_lsn:",
        "if False:",
    ),
    Mutant(
        24,
        "finishing a cut that was announced (driver)",
        SIM_WORLD,
        "disk.recover(state.recover_from_lsn, state.truncating_to_lsn)",
        "disk.recover(state.recover_from_lsn, 0)",
    ),
    Mutant(
        24,
        "the sync of what a start has read (driver)",
        SIM_DISK,
        "        self.truncate(scanner.record_end_lsn)\n        return",
        "        del self.live[scanner.record_end_lsn - self.start :]\n        return",
    ),
    Mutant(
        4,
        "time to win left to whom the vote was given",
        "walproxy.quorum.replica",
        "self.proposer.on_vote_given(now_s)",
        "pass",
    ),
    Mutant(
        25,
        "wal behind a seal refused",
        ACCEPTOR,
        "if sealed and message.start_lsn + len(message.wal) > sealed:",
        "if False:",
    ),
    Mutant(
        25,
        "the primary of a sealed timeline refused",
        PRIMARY,
        "if primary.tli == tli and is_sealed:",
        "if False:",
    ),
    Mutant(
        25,
        "a timeline that leaves beyond the seal refused",
        PRIMARY,
        "if is_sealed and left_at > end_lsn:",
        "if False:",
    ),
    Mutant(
        25,
        "the seal repeated by later terms",
        PROPOSER,
        "Seal.SEALED if held.sealed_lsn else Seal.OPEN",
        "Seal.OPEN",
    ),
    Mutant(
        26,
        "the primary not ready before its tail is committed",
        "walproxy.group",
        "if commit < tail:",
        "if False:",
    ),
    Mutant(
        27,
        "waiting until the next one holds all of the log",
        PROPOSER,
        "if to and not to.is_told and self.peer(to.name).flush_lsn >= self._log.record_end_lsn:",
        "if to and not to.is_told:",
    ),
    Mutant(
        27,
        "no wal taken while handing over",
        PROPOSER,
        "return self.successor is None",
        "return True",
    ),
    Mutant(
        27,
        "only the proposer in its term believed",
        ACCEPTOR,
        "if self.leader != peer or message.term != self.state.term:",
        "if False:",
    ),
    Mutant(
        27,
        "going on when the next one does not come",
        PROPOSER,
        "self.successor = None  # It did not come: we go on.",
        "pass",
    ),
)
