"""The acts of the demo, in their order; each leaves its figures behind."""

import statistics
import time
from pathlib import Path

from rich.console import Console

from demo import past
from demo.figures import Figures
from demo.lag import LagSampler
from tools.ledger import Ledger, longest_stall, per_second
from tools.recovery import hold_wal, recover_from_each_majority
from tools.server import Server
from tools.stack import Program, Stack
from tools.standby import make_standby, row_differences, wait_for_replay

SCALE = 10
CLIENTS = 8
PAGES = 400
REQUESTS = 3000

# Seconds from the start of the load.
KILL_S, RESTART_S, REMEMBER_S, FPW_OFF_S, END_S = 20, 32, 34, 40, 62
WAL_WINDOW_S = 17


class Show:
    """Everything on the stage.

    Args:
        folder: empty, short, on a disk with some gigabytes; the caller removes it.
    """

    def __init__(self, folder: Path, bindir: Path, console: Console) -> None:
        self.figures = Figures()
        self._folder = folder
        self._console = console
        self._begin_s = time.monotonic()
        self._primary = Server(folder / "primary", bindir, name="primary")
        self._stack = Stack(folder / "stack", self._primary)
        self._standby: Server | None = None
        self._ledger = Ledger(self._primary, scale=SCALE)
        self._remembered: list[past.Remembered] = []

    def play(self) -> None:
        """All of it."""
        self._set_up()
        self._under_load()
        self._look_at_the_past()
        self._verify()
        self._compare_standby()
        self._count_lost()
        self.figures.took_s = time.monotonic() - self._begin_s

    def clear(self) -> None:
        """End every process."""
        if self._standby is not None:
            self._standby.kill()
        self._stack.kill()

    def _say(self, what: str) -> None:
        self._console.print(
            f"[dim]{time.monotonic() - self._begin_s:6.1f} s[/dim]  {what}", highlight=False, soft_wrap=True
        )

    # --- acts ---------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        primary, stack = self._primary, self._stack
        primary.initdb().configure(max_wal_size="8GB", checkpoint_timeout="30min").start()
        self.figures.postgres = str(primary.value("select version()")).partition(" on ")[0]
        self._say(f"a stock {self.figures.postgres} on port {primary.port}")
        self._ledger.create()
        primary.query("create extension pageinspect")
        self._say(f"pgbench tables, scale {SCALE}")
        stack.start()
        self._say(f"three nodes, {stack.proposer().name} is the proposer; every commit waits for two of them")
        lsn = stack.pageserver.status()["consistency_lsn"]
        self._say(f"a pageserver, from a base backup of the running primary: consistent at {lsn}")
        hold_wal(stack, self._folder / "backup")
        self._say("a base backup without WAL, for the end")
        # It begins at the proposer, which will be killed, and goes on at another node.
        proposer = stack.proposer()
        upstream = stack.conninfo(proposer, *(node for node in stack.nodes if node is not proposer))
        self._standby = make_standby(self._folder / "standby", primary, upstream).start()
        self._say(f"a stock standby that follows {proposer.name}")

    def _under_load(self) -> None:
        primary, stack = self._primary, self._stack
        assert self._standby is not None
        primary.query("checkpoint")
        load = self._ledger.start(clients=CLIENTS, duration_s=END_S)
        start_s = time.time()
        self._say(f"pgbench, {CLIENTS} clients, {END_S} s")
        with LagSampler(primary, self._standby) as lag:
            fpw_on = self._wal_during(WAL_WINDOW_S)
            _sleep_until(start_s + KILL_S)
            killed = stack.proposer()
            kill_s = time.time()
            killed.kill()
            self._say(f"[red]SIGKILL[/red] to the proposer, {killed.name}")
            self._say(f"{stack.proposer().name} proposes now, {time.time() - kill_s:.1f} s later")
            _sleep_until(start_s + RESTART_S)
            killed.start()
            self._say(f"{killed.name} is back")
            _sleep_until(start_s + REMEMBER_S)
            self._remember()
            _sleep_until(start_s + FPW_OFF_S)
            primary.reload(full_page_writes=False)
            primary.query("checkpoint")
            self._say("full_page_writes is off")
            fpw_off = self._wal_during(WAL_WINDOW_S)
            code = load.wait(deadline_s=END_S)
        if code != 0:
            self.figures.errors.append(f"pgbench ended with {code}: {load.tail(3)}")
        commits = self._ledger.commits()
        figures = self.figures
        figures.commits_acknowledged = len(commits)
        figures.transactions_per_second = per_second(commits, from_s=commits[0].at_s, to_s=commits[-1].at_s)
        figures.longest_commit_stall_s = longest_stall(commits, from_s=kill_s, to_s=kill_s + 60)
        figures.wal_bytes_per_transaction_fpw_on = self._per_transaction(*fpw_on)
        figures.wal_bytes_per_transaction_fpw_off = self._per_transaction(*fpw_off)
        figures.standby_lag_median_ms = statistics.median(lag.lags_s) * 1000
        figures.standby_lag_longest_ms = max(lag.lags_s) * 1000
        stall = figures.longest_commit_stall_s
        self._say(
            f"{len(commits):,} commits acknowledged; the longest wait of the failover was {stall:.2f} s"
        )

    def _wal_during(self, seconds: float) -> tuple[float, float, int]:
        """When it began and ended, and the bytes of WAL that were written."""
        position = "select pg_current_wal_insert_lsn() - '0/0'"
        begin_s, begin = time.time(), int(self._primary.value(position))
        time.sleep(seconds)
        return begin_s, time.time(), int(self._primary.value(position)) - begin

    def _per_transaction(self, begin_s: float, end_s: float, wal_bytes: int) -> float:
        return wal_bytes / (
            per_second(self._ledger.commits(), from_s=begin_s, to_s=end_s) * (end_s - begin_s)
        )

    def _remember(self) -> None:
        kept, different = past.remember(self._primary, self._stack.pageserver, pages=PAGES)
        self._remembered = kept
        if different:
            self.figures.errors.append(f"pages that were not the primary's when remembered: {different}")
        self._say(f"{len(kept)} pages remembered around LSN {kept[-1].lsn}")

    def _look_at_the_past(self) -> None:
        pageserver: Program = self._stack.pageserver
        latencies = past.latencies_us(pageserver, self._remembered, requests=REQUESTS)
        self.figures.getpage_p50_us = latencies[len(latencies) // 2]
        self.figures.getpage_p99_us = latencies[len(latencies) * 99 // 100]
        self.figures.pages_remembered = len(self._remembered)
        self.figures.pages_remembered_different = past.changed(pageserver, self._remembered)
        self._say(f"asked again for the {len(self._remembered)} pages as they were")

    def _verify(self) -> None:
        report = self._stack.verify()
        self.figures.pages_verified = report["pages"]
        self.figures.pages_different = report["different"]
        if report["exit_code"] != 0:
            shown = [*report["differences"][:3], *report["not_checked"][:3]]
            self.figures.errors.append(f"verify ended with {report['exit_code']}: {shown}")
        self._say(f"{report['pages']:,} pages compared with the primary's, {report['different']} different")

    def _compare_standby(self) -> None:
        assert self._standby is not None
        wait_for_replay(self._standby, str(self._primary.value("select pg_current_wal_insert_lsn()::text")))
        self.figures.standby_tables_different = list(row_differences(self._primary, self._standby))
        self._say("the standby compared with the primary, row for row")
        self._standby.stop()

    def _count_lost(self) -> None:
        self._say("[red]SIGKILL[/red] to everything; the primary's data directory is put out of reach")
        backup, folder = self._folder / "backup", self._folder / "recovery"
        folder.mkdir()
        lost = self.figures.commits_lost_by_nodes
        for found in recover_from_each_majority(self._stack, backup, self._ledger, folder):
            names = " and ".join(found.nodes)
            lost[names] = len(found.missing)
            self._say(
                f"recovered to {found.commit_lsn} from {names} alone: {len(found.missing)} commits lost"
            )
        self.figures.commits_lost = max(lost.values())


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.time()))
