"""pgbench that remembers: every transaction writes an id, and every id it was told is committed is kept.

pgbench's transaction log has one line for each transaction that came back, with its client, its number and
the time. The script counts along and writes the same (run, client, number) into the table ``ledger``, so the
log is the client's own memory of what the server acknowledged, and nothing of it is on the server.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tools.process import Process
from tools.server import Server

TABLE = (
    "create table ledger (run int, client int, number int, filler text, primary key (run, client, number))"
)

# pgbench's own tpcb-like transaction, and the id.
SCRIPT = r"""
\set number :number + 1
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
select abalance from pgbench_accounts where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = :tid;
update pgbench_branches set bbalance = bbalance + :delta where bid = :bid;
insert into pgbench_history (tid, bid, aid, delta, mtime)
  values (:tid, :bid, :aid, :delta, current_timestamp);
insert into ledger values (:run, :client_id, :number);
end;
"""


class Id(NamedTuple):
    run: int
    client: int
    number: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction that the client was told is committed, and when (seconds since 1970)."""

    id: Id
    at_s: float
    latency_s: float


class Ledger:
    """The table, the load on it, and the memory of what was acknowledged.

    Args:
        server: must run when ``create`` and ``start`` are called.
        scale: of ``pgbench -i``.
    """

    def __init__(self, server: Server, *, scale: int = 1) -> None:
        self._server = server
        self._scale = scale
        self._folder = server.own(server.folder / "ledger")
        self._runs = 0

    def move(self, server: Server) -> None:
        """Go on with another server, which was promoted."""
        self._server = server

    def create(self) -> None:
        """Fill pgbench's tables and make the empty ledger."""
        self._server.run("pgbench", "-i", "-q", "-s", self._scale)
        self._server.query(TABLE)

    def start(self, *, clients: int, duration_s: float, options: Sequence[str] = ()) -> Process:
        """Start a run of pgbench; its memory is there once the process has ended, however it ended."""
        self._runs += 1
        script = self._folder / "script.sql"
        script.write_text(SCRIPT)
        variables = ("-D", f"run={self._runs}", "-D", "number=0", "-D", f"scale={self._scale}")
        shape = ("-c", str(clients), "-j", str(min(clients, 2)), "-T", str(max(1, round(duration_s))))
        log = ("-l", "--log-prefix", str(self._folder / f"run-{self._runs}"))
        arguments = ("-n", *shape, *log, *variables, *options, "-f", str(script))
        load = self._server.background("pgbench", *arguments, name=f"pgbench-{self._runs}")
        load.start()
        return load

    def commits(self) -> list[Commit]:
        """Everything acknowledged so far by runs that have ended, in order of time."""
        found = [commit for run in range(1, self._runs + 1) for commit in self._remembered(run)]
        return sorted(found, key=lambda commit: commit.at_s)

    def _remembered(self, run: int) -> Iterator[Commit]:
        for log in self._folder.glob(f"run-{run}.*"):
            yield from _parse(run, log)

    def missing_from(self, server: Server) -> set[Id]:
        """The acknowledged ids that ``server`` does not have."""
        kept = {Id(*row) for row in server.query("select run, client, number from ledger")}
        return {commit.id for commit in self.commits()} - kept


def _parse(run: int, log: Path) -> Iterator[Commit]:
    for line in log.read_text().splitlines():
        fields = line.split()
        # A run that was killed may leave half a line; a failed transaction says so in place of its time.
        if len(fields) < 6 or not fields[2].isdigit():
            continue
        client, number, latency_us, _, at_s, at_us = map(int, fields[:6])
        yield Commit(Id(run, client, number), at_s + at_us / 1e6, latency_us / 1e6)


def longest_stall(commits: Sequence[Commit], *, from_s: float = 0.0, to_s: float = float("inf")) -> float:
    """The longest time, in seconds, in which no client at all was told of a commit.

    Args:
        commits: in order of time.
        from_s: gaps that end before are not looked at.
        to_s: gaps that begin after are not looked at.
    """
    gaps = pairwise(commits)
    return max((b.at_s - a.at_s for a, b in gaps if b.at_s >= from_s and a.at_s <= to_s), default=0.0)


def per_second(commits: Sequence[Commit], *, from_s: float, to_s: float) -> float:
    """Commits per second in a window."""
    return sum(from_s <= commit.at_s < to_s for commit in commits) / (to_s - from_s)
