"""``python -m tests.chaos.failover``: how long commits wait when the proposer dies, is stopped or is cut off.

The time is from the fault to the next acknowledged commit, under load, with the settings a node comes with.
"""

import argparse
import itertools
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.harness import machine
from tests.chaos.cluster import Cluster, Member, Settings
from tests.chaos.run import commit_of_ours
from tools import network
from tools.ledger import Commit
from tools.postgres import bindir, default_major

ROUND_S = 8.0


def kill(member: Member) -> None:
    member.process.kill()


def stop(member: Member) -> None:
    member.process.pause()


def cut(member: Member) -> None:
    member.host.cut()


FAULTS: dict[str, Callable[[Member], None]] = {"SIGKILL": kill, "SIGSTOP": stop, "cut link": cut}


def time_to_commit(commits: list[Commit], fault_s: float) -> float:
    """From the fault to the end of the longest silence that began within a second of it, in seconds.

    A commit that was on its way to the client already does not count: it ends no silence.
    """
    after = [commit.at_s for commit in commits if fault_s - 5 <= commit.at_s <= fault_s + ROUND_S + 60]
    gaps = [(b - a, b) for a, b in itertools.pairwise(after) if b >= fault_s and a <= fault_s + 1]
    return max(gaps)[1] - fault_s


def measure(cluster: Cluster, name: str, times: int) -> list[float]:
    """Do it to the proposer so often; the time of each, in seconds."""
    faults = []
    for number in range(times):
        cluster.load(ROUND_S)
        time.sleep(2 + random.Random(number).random())
        proposer = cluster.proposer()
        faults.append(time.time())
        FAULTS[name](proposer)
        cluster.commit_something()
        time.sleep(0.5)
        cluster.revive()
        cluster.end_of_load()
        times_s = time_to_commit(cluster.ledger.commits(), faults[-1])
        cluster.say(f"{name} {number + 1}/{times}: {proposer.name}, next commit after {times_s:.3f} s")
    commits = cluster.ledger.commits()
    return [time_to_commit(commits, fault_s) for fault_s in faults]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.failover", description=__doc__)
    parser.add_argument("--times", type=int, default=30, help="of each (default: 30)")
    parser.add_argument("--pg", type=int, default=default_major(), help="PostgreSQL major")
    parser.add_argument("--json", type=Path, help="default: build/failover-MAJOR.json")
    asked = parser.parse_args()
    if why := network.missing():
        sys.exit(f"failover {why}")
    network.enter_private()

    folder = Path(tempfile.mkdtemp(prefix="failover-"))
    folder.chmod(0o755)
    settings = Settings(16, full_page_writes=True, checksums=False, checkpoint_timeout_s=300, clients=4)
    cluster = Cluster(folder, bindir(asked.pg), settings, lambda line: print(line, flush=True))
    try:
        cluster.start()
        taken = {name: measure(cluster, name, asked.times) for name in FAULTS}
        lost = len(cluster.ledger.missing_from(cluster.primary))
        commits = len(cluster.ledger.commits())
    finally:
        cluster.kill()
    shutil.rmtree(folder, ignore_errors=True)
    figures: dict[str, Any] = {
        name: {
            "times": len(times_s),
            "median_s": round(statistics.median(times_s), 3),
            "longest_s": round(max(times_s), 3),
            "all_s": [round(one, 3) for one in times_s],
        }
        for name, times_s in taken.items()
    }
    written = {
        "commit": commit_of_ours(),
        "command": f"python -m tests.chaos.failover --times {asked.times} --pg {asked.pg}",
        "machine": machine(),
        "commits": commits,
        "missing_from_primary": lost,
        "from_fault_to_next_commit": figures,
    }
    path = asked.json or Path(f"build/failover-{asked.pg}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1) + "\n")
    for name, figure in figures.items():
        print(f"{name}: median {figure['median_s']} s, longest {figure['longest_s']} s of {figure['times']}")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
