"""The cluster that faults are done to: a primary, its standby, a group of nodes and a pageserver, each a host."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tools.disk import Disk
from tools.ledger import Ledger
from tools.network import Host, Network
from tools.process import Process
from tools.recovery import hold_wal
from tools.server import Server
from tools.stack import GROUP, Stack
from tools.standby import follow, wait_for_replay
from tools.wait import until
from walproxy.wire.lsn import Lsn, parse_lsn

NOT_YET = (psycopg.Error, OSError)
NODES = 3
DISK_MB = 16 << 10
POSTGRES_PORT = 5432
BACK_S = 300.0  # A machine that is busy with other things is no fault.
EXIT_POISONED = 4


class Broken(AssertionError):
    """The cluster did what it must not, or did not come back."""


@dataclass(frozen=True)
class Settings:
    """What is drawn for a whole run."""

    segment_size_mb: int
    full_page_writes: bool
    checksums: bool
    checkpoint_timeout_s: int
    clients: int

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__}


@dataclass
class Member:
    """One host: what runs there, on which disk, and how it may have ended."""

    host: Host
    disk: Disk
    process: Process
    # Exit codes that a fault has made possible since it was last seen alive; a kill by us always is.
    may_end_with: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.process.name


class Cluster:
    """Not yet started. In a network of its own: see ``tools.network``.

    Args:
        folder: for disks, logs and copies.
        say: gets a line of what happens.
    """

    def __init__(self, folder: Path, bindir: Path, settings: Settings, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.settings = settings
        self.say = say
        self.network = Network()
        self._primary_address = self.network.floating_address()
        hosts = {name: self.network.host(name) for name in ("a", "b", "c", "pages", "pg-1", "pg-2")}
        disks = {name: Disk(folder / "disks" / name, size_mb=DISK_MB) for name in hosts}
        places = {
            name: hosts[short].place(data_dir=disks[short].folder / "data") for name, short in _SHORT.items()
        }
        self._servers = [
            Server(
                folder / name,
                bindir,
                name=name,
                place=hosts[name].place(
                    data_dir=disks[name].folder / "data", peer_address=self._primary_address
                ),
                port=POSTGRES_PORT,
            )
            for name in ("pg-1", "pg-2")
        ]
        self.stack = Stack(folder / "stack", self._servers[0], nodes=NODES, places=places)
        for server in self._servers:
            server.own(disks[server.process.name].folder)
        processes: dict[str, Process] = {_SHORT[node.name]: node for node in self.stack.nodes}
        processes |= {"pages": self.stack.pageserver}
        processes |= {server.process.name: server.process for server in self._servers}
        self.members = {name: Member(hosts[name], disks[name], processes[name]) for name in hosts}
        for name in ("a", "b", "c", "pages"):
            hosts[name].forward_to_loopback(self.stack.pageserver.port)
        self.ledger = Ledger(self.primary)
        self.backup = folder / "backup"
        self.loads: list[Process] = []

    # Who is who.

    @property
    def primary(self) -> Server:
        return self.stack.primary

    @property
    def standby(self) -> Server:
        return next(server for server in self._servers if server is not self.primary)

    @property
    def primary_member(self) -> Member:
        return self.members[self.primary.process.name]

    @property
    def page_member(self) -> Member:
        return self.members["pages"]

    @property
    def nodes(self) -> list[Member]:
        return [self.members[_SHORT[node.name]] for node in self.stack.nodes]

    def proposer(self, *, deadline_s: float = BACK_S) -> Member:
        """The one that proposes. Raises TooLate."""
        return self.members[_SHORT[self.stack.proposer(deadline_s=deadline_s).name]]

    # Life.

    def start(self) -> None:
        """Everything runs, and the WAL is held that the recovery at the end needs."""
        drawn = self.settings
        self.primary.initdb(checksums=drawn.checksums, segment_size_mb=drawn.segment_size_mb)
        self.primary.open_to_network()
        self.primary.configure(
            full_page_writes=drawn.full_page_writes,
            checkpoint_timeout=f"{drawn.checkpoint_timeout_s}s",
            autovacuum_naptime="3s",
            min_wal_size="32MB",
            max_wal_size="256MB",
        )
        self.primary_member.host.take_address(self._primary_address)
        self.primary.start()
        self.ledger.create()
        self.stack.start(deadline_s=BACK_S)
        hold_wal(self.stack, self.backup)
        self._make_standby()
        self._sync_disks()

    def _sync_disks(self) -> None:
        """What we have written ourselves, settings above all, is not to go with the power."""
        for server in self._servers:
            self.members[server.process.name].disk.sync()

    def _make_standby(self) -> None:
        server = self.standby
        self.primary.base_backup(server.data_dir)
        follow(server, self.stack.peer_conninfo())
        self.start_standby()

    def start_standby(self) -> None:
        # It becomes ready to answer only once it has what the backup needs: not waited for here.
        if not self.standby.process.alive:
            self.standby.process.start()

    def load(self, duration_s: float) -> Process:
        """Begin another run of clients."""
        made = self.ledger.start(
            clients=self.settings.clients, duration_s=duration_s, options=("-R", "150", "-M", "prepared")
        )
        self.loads.append(made)
        return made

    def end_of_load(self) -> None:
        """Wait for it: as long as its last transactions take, or until its server ends it."""
        for load in self.loads:
            load.wait(deadline_s=BACK_S)
        self.loads = []

    def burst(self) -> Process:
        """Let one transaction write some megabytes of small records, as long as that takes."""
        message = "pg_logical_emit_message(true, 'chaos', repeat('x', i % 3000))"
        query = f"select count({message}) from generate_series(1, 3000) i"
        made = self.primary.background("psql", "-qAtc", query, name=f"burst-{len(self.loads)}")
        made.start()
        self.loads.append(made)
        return made

    def revive(self) -> None:
        """Mend all, start all that has ended, and wait until commits go on and everyone follows.

        Raises:
            Broken: a program ended as none of the faults explains, or does not come back.
        """
        self.network.mend()
        for member in self.members.values():
            member.disk.mend()
            member.disk.free()
            if member.process.alive:
                member.process.resume()
            else:
                self.judge_exit(member)
        self.start_all()
        self.wait_for_health()

    def start_all(self) -> None:
        """Start what does not run, on a disk that can be written to."""
        for member in self.members.values():
            if member.process.alive:
                continue
            if member.disk.is_read_only:
                self.say(f"  {member.name}: its file system gave up writing; mounted anew")
                member.disk.lose_power()
            if member.process is self.primary.process:
                self.primary.start(deadline_s=BACK_S)
            else:
                member.process.start()

    def judge_exit(self, member: Member) -> None:
        """Raise Broken if it ended by itself as it should not."""
        code = member.process.exit_code
        if code is None or code < 0 or code in member.may_end_with:
            return
        raise Broken(f"{member.name} ended with {code}, not one of {sorted(member.may_end_with)}")

    def wait_for_health(self) -> None:
        """Until commits are acknowledged and each node and the pageserver have all WAL of this moment."""
        began_s = time.monotonic()
        try:
            self.stack.wait_for_quorum(deadline_s=BACK_S)
            end = self.commit_something()
            until(lambda: self._all_have(end), what=f"all have {end}", deadline_s=BACK_S, ignoring=NOT_YET)
        except AssertionError as error:
            raise Broken(f"not healthy again after {time.monotonic() - began_s:.0f} s: {error}") from error
        for member in self.members.values():
            member.may_end_with.clear()
            if not member.process.alive:
                raise Broken(f"{member.name} ended with {member.process.exit_code} while all was well")

    def commit_something(self) -> Lsn:
        """Where the record lies of a transaction that was acknowledged just now."""
        with self.primary.connect(options=f"-c statement_timeout={int(BACK_S * 1000)}") as connection:
            query = b"select pg_logical_emit_message(true, 'chaos', 'well')::text"
            ((lsn,),) = connection.execute(query).fetchall()
        return parse_lsn(str(lsn))

    def _all_have(self, end: Lsn) -> bool:
        for node in self.stack.nodes:
            assert node.alive, f"{node.name} ended with {node.exit_code}:\n{node.tail(5)}"
            if parse_lsn(str(node.status()["commit_lsn"])) < end:
                return False
        pageserver = self.stack.pageserver
        assert pageserver.alive, f"the pageserver ended with {pageserver.exit_code}:\n{pageserver.tail(5)}"
        # It does not know yet while it reads its own WAL again.
        return parse_lsn(str(pageserver.status()["ingested_lsn"] or "0/0")) >= end

    def commit_lsns(self) -> dict[str, Lsn]:
        """What each node that answers calls committed."""
        found = {}
        for node, status in self.stack.roles():
            found[node.name] = parse_lsn(str(status["commit_lsn"]))
        return found

    # Checks.

    def look_for_promise(self, member: Member, promised: Lsn) -> None:
        """Of a node that was started after it lost its power. Raises Broken if it lacks what it had committed."""
        for node in self.stack.nodes:
            if node is member.process:
                node.ready(deadline_s=BACK_S)
                found = parse_lsn(str(node.status()["flush_lsn"]))
                if found < promised:
                    raise Broken(f"{node.name} had {promised} committed before its power went, has {found}")

    def verify_pages(self) -> dict[str, Any]:
        """What ``pageserver verify`` says; Broken if a page differs."""
        report = self.stack.verify()
        if report["exit_code"] != 0 or report["differences"]:
            raise Broken(f"verify: exit={report['exit_code']}, {report['differences'][:5]}")
        return report

    def look_for_commits(self) -> int:
        """All that was acknowledged is in the primary; their number."""
        missing = self.ledger.missing_from(self.primary)
        if missing:
            raise Broken(f"the primary lacks {len(missing)} acknowledged commits: {sorted(missing)[:5]}")
        return len(self.ledger.commits())

    # Another primary.

    @contextlib.contextmanager
    def promotion(self, *, comes_back: bool) -> Iterator[None]:
        """The standby becomes the primary; within, the old one is to be ended, in whatever way.

        The pageserver does not follow to another timeline: it is verified before and begun anew after.

        Args:
            comes_back: afterwards the old one runs again for a while, at the primary's address.
        """
        yield
        self.await_all_wal()
        new, old = self.standby, self.primary
        assert not old.process.alive
        new.reload(synchronous_standby_names=f"ANY 1 ({GROUP})", primary_conninfo="")
        self.primary_member.host.drop_address(self._primary_address)
        new.query("select pg_promote()")
        self.stack.primary = new
        self.ledger.move(new)
        self.primary_member.host.take_address(self._primary_address)
        self.stack.wait_for_quorum(deadline_s=BACK_S)
        if comes_back:
            self._let_come_back(old)
        self._begin_pageserver_anew()
        shutil.rmtree(old.data_dir)
        self._make_standby()
        self._sync_disks()

    def _let_come_back(self, old: Server) -> None:
        """Nobody must be told by the old primary that anything is committed. Raises Broken."""
        self.commit_something()
        new_host = self.primary_member.host
        old_host = self.members[old.process.name].host
        new_host.drop_address(self._primary_address)
        old_host.take_address(self._primary_address)
        old.start(deadline_s=BACK_S)
        attempt = old.background("psql", "-qAtc", "create table split (brain int)", name="split")
        attempt.start()
        time.sleep(7.0)  # A refused primary is asked again after 5 s.
        told = not attempt.alive
        old.kill()
        attempt.kill()
        old_host.drop_address(self._primary_address)
        new_host.take_address(self._primary_address)
        if told and attempt.exit_code == 0:
            raise Broken("the old primary acknowledged a commit after another one was promoted")
        self.stack.wait_for_quorum(deadline_s=BACK_S)

    def await_all_wal(self) -> None:
        """With the primary gone, wait until the standby has all that the group has, to its last record.

        A node that does not run may have more: nobody was told of that, and it has to go.
        """

        def settled() -> Lsn | None:
            statuses = [status for _, status in self.stack.roles()]
            ends = {str(status[key]) for status in statuses for key in ("flush_lsn", "commit_lsn")}
            running = sum(node.alive for node in self.stack.nodes)
            return parse_lsn(ends.pop()) if len(statuses) == running and len(ends) == 1 else None

        end = until(settled, what="all nodes that run have the same log, committed", deadline_s=BACK_S)
        until(
            lambda: self.standby.value("select 1"),
            what="the standby answers",
            deadline_s=BACK_S,
            ignoring=NOT_YET,
        )
        wait_for_replay(self.standby, str(end), deadline_s=BACK_S)

    def _begin_pageserver_anew(self) -> None:
        pageserver = self.stack.pageserver
        if not pageserver.alive:
            self.judge_exit(self.page_member)
        assert pageserver.stop() == 0, pageserver.tail()
        shutil.rmtree(pageserver.data_dir)
        pageserver.start()
        self.stack.wait_for_pages(deadline_s=BACK_S)

    def kill(self) -> None:
        for process in (*self.loads, *(member.process for member in self.members.values())):
            process.kill()


_SHORT = {"node-a": "a", "node-b": "b", "node-c": "c", "pageserver": "pages"}
