"""One run: steps of load and faults drawn from a seed, and at the end a look for every acknowledged commit."""

import contextlib
import math
import random
import shutil
import subprocess
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import faults
from tests.chaos.cluster import BACK_S, Broken, Cluster, Settings
from tools.ledger import Commit, longest_stall
from tools.logs import log_differences
from tools.recovery import recover_from_each_majority
from tools.wait import until
from walproxy.wire.lsn import parse_lsn

LOAD_S = 6.0
PROMOTION = "promote"
# Of a whole run of half an hour: one in this many steps, and at least so many.
STEPS_A_PROMOTION = 9


def commit_of_ours() -> str:
    """The commit that runs, marked if files differ from it."""
    described = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()


@dataclass
class Window:
    """When a fault of one kind alone was there: it began, it was undone, all was well again (seconds since 1970)."""

    kind: str
    began_s: float
    undone_s: float = math.inf
    well_s: float = math.inf


@dataclass
class Run:
    """What is drawn, what happened, what was found."""

    folder: Path
    bindir: Path
    major: int
    seed: int
    seconds: float
    least: int
    say: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    windows: list[Window] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        self.began_s = time.monotonic()
        self.commit = commit_of_ours()
        draw = random.Random(f"{self.seed} settings")
        self.settings = Settings(
            segment_size_mb=draw.choice((1, 4, 16)),
            full_page_writes=draw.random() < 0.5,
            checksums=draw.random() < 0.5,
            checkpoint_timeout_s=draw.choice((30, 60, 300)),
            clients=draw.choice((2, 4, 8)),
        )
        self._deck: list[str] = []
        self._phases: list[dict[str, Any]] = []

    def carry_out(self) -> bool:
        """Do all of it; False if anything was found. Everything is killed at the end, and the folder stays."""
        self._say(f"seed {self.seed}, PostgreSQL {self.major}, {self.settings}")
        cluster = Cluster(self.folder, self.bindir, self.settings, self._say)
        try:
            cluster.start()
            self._say("the cluster runs")
            self.began_s = time.monotonic()
            while time.monotonic() - self.began_s < self.seconds or not self._is_enough():
                self.steps += 1
                self._step(cluster, random.Random(f"{self.seed} step {self.steps}"))
            self._finish(cluster)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
            self.failure = f"{type(error).__name__}: {error}"
            self._say(f"FAILED in step {self.steps}: {''.join(traceback.format_exception(error))}")
            self._leave_evidence(cluster)
        finally:
            cluster.kill()
        return self.failure is None

    def _say(self, line: str) -> None:
        self.say(f"{time.monotonic() - self.began_s:7.1f} s  {line}")

    # --- steps --------------------------------------------------------------------------------------------

    def _step(self, cluster: Cluster, draw: random.Random) -> None:
        if self.steps % STEPS_A_PROMOTION == STEPS_A_PROMOTION // 2:
            self._promote(cluster, draw)
            return
        drawn = [self._deal(draw) for _ in range(draw.choice((1, 2, 2, 3, 4)))]
        cluster.load(LOAD_S)
        time.sleep(draw.uniform(0.3, 1.5))
        window = Window(" and ".join(drawn), time.time())
        with ExitStack() as undo:
            for name in drawn:
                hit = undo.enter_context(faults.KINDS[name](cluster, draw))
                self._say(f"step {self.steps}: {name}: {hit}")
                self.counts[name] += 1
                time.sleep(draw.uniform(0.1, 2.0))
        cluster.revive()
        window.undone_s = window.well_s = time.time()
        cluster.end_of_load()
        if len(drawn) == 1:
            self.windows.append(window)
        if not cluster.primary.process.alive or any("primary" in name for name in drawn):
            cluster.look_for_commits()

    def _is_enough(self) -> bool:
        """Every kind was done as often as asked for, and promotions half as often."""
        is_varied = all(self.counts[name] >= self.least for name in faults.KINDS)
        return is_varied and self.counts[PROMOTION] >= self.least // 2

    def _deal(self, draw: random.Random) -> str:
        """Each kind comes once before any comes again."""
        if not self._deck:
            self._deck = draw.sample(sorted(faults.KINDS), len(faults.KINDS))
        return self._deck.pop()

    def _promote(self, cluster: Cluster, draw: random.Random) -> None:
        self._check_phase(cluster)
        cluster.load(LOAD_S)
        time.sleep(draw.uniform(0.5, 3.0))
        window = Window(PROMOTION, time.time())
        done = faults.promote(cluster, draw)
        self._say(f"step {self.steps}: {PROMOTION}: {done}")
        self.counts[PROMOTION] += 1
        cluster.end_of_load()
        cluster.revive()
        window.undone_s = window.well_s = time.time()
        self.windows.append(window)
        cluster.look_for_commits()

    # --- checks -------------------------------------------------------------------------------------------

    def _check_phase(self, cluster: Cluster) -> None:
        """All that can be asked while the cluster lives."""
        report = cluster.verify_pages()
        commits = cluster.look_for_commits()
        self._phases.append({"pages": report["pages"], "different": report["different"]})
        self._say(f"  verified {report['pages']} pages, {report['different']} different; {commits} commits")

    def _finish(self, cluster: Cluster) -> None:
        """Every remembered id is in the primary, in the pages, and in the committed WAL of any two nodes."""
        cluster.load(2)
        cluster.end_of_load()
        cluster.revive()
        self._check_phase(cluster)
        stack = cluster.stack
        end = parse_lsn(str(cluster.primary.value("select pg_current_wal_flush_lsn()::text")))
        commit_lsn = until(
            lambda: min(found) if len(found := cluster.commit_lsns().values()) == len(stack.nodes) else None,
            what="all nodes say what is committed",
            deadline_s=BACK_S,
        )
        self._say(f"the primary has WAL up to {end}, the nodes call {commit_lsn} committed")
        cluster.kill()
        segment_size = self.settings.segment_size_mb << 20
        differences = list(log_differences(stack.nodes, commit_lsn, segment_size))
        self.found["logs_equal_up_to"] = str(commit_lsn)
        self.found["log_differences"] = differences
        if differences:
            raise Broken(f"the nodes' logs differ: {differences[:3]}")
        self._say("the logs of all nodes are equal up to there")
        lost = {}
        copies = self.folder / "recovery"
        for recovered in recover_from_each_majority(
            stack, cluster.backup, cluster.ledger, copies, deadline_s=BACK_S
        ):
            lost[" and ".join(recovered.nodes)] = len(recovered.missing)
            self._say(f"  {' and '.join(recovered.nodes)}: {len(recovered.missing)} lost")
            self.found["lost"] = lost
            if recovered.missing:
                raise Broken(f"lost with {recovered.nodes}: {sorted(recovered.missing)[:5]}")
        commits = cluster.ledger.commits()
        self.found["commits"] = len(commits)
        self.found["stalls"] = self._stalls(commits)

    def _stalls(self, commits: list[Commit]) -> dict[str, dict[str, float]]:
        """By kind: the longest time in which nobody was told of a commit while it was there alone."""
        longest: defaultdict[str, list[float]] = defaultdict(list)
        for window in self.windows:
            around = [c for c in commits if window.began_s - 5 <= c.at_s <= window.well_s + 30]
            longest[window.kind].append(longest_stall(around, from_s=window.began_s, to_s=window.undone_s))
        return {
            kind: {"times": len(stalls), "longest_s": round(max(stalls), 2)}
            for kind, stalls in sorted(longest.items())
        }

    def _leave_evidence(self, cluster: Cluster) -> None:
        """The disks go with our mounts: what was on those of the nodes is copied beside their logs."""
        cluster.kill()
        for member in cluster.members.values():
            with contextlib.suppress(OSError, AssertionError, shutil.Error):
                member.disk.copy_to(self.folder / "evidence" / member.name)

    def as_json(self) -> dict[str, Any]:
        """All that is worth keeping."""
        return {
            "seed": self.seed,
            "major": self.major,
            "seconds": round(time.monotonic() - self.began_s),
            "settings": self.settings.as_json(),
            "steps": self.steps,
            "faults": dict(sorted(self.counts.items())),
            "phases": self._phases,
            **self.found,
            "failure": self.failure,
        }
