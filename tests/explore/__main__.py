"""``python -m tests.explore``: search small worlds to the end, or as far as it is let; docs/results/explore.json."""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.explore.bounds import Bounds, Grain
from tests.explore.search import Found, Search
from walproxy.quorum.membership import Membership


@dataclass(frozen=True)
class Small:
    """A world to search, and how many states it is given."""

    bounds: Bounds
    membership: Membership
    states_max: int

    @property
    def name(self) -> str:
        bounds, members = self.bounds, self.membership.members
        if bounds.wanted:
            who = f"members {''.join(members)} to {''.join(bounds.wanted)}, proposers {''.join(bounds.proposers)}"
        else:
            who = f"proposers {len(bounds.proposers)}, acceptors {len(members)}"
        return f"{who}, terms {bounds.terms}, positions {bounds.positions}, one {bounds.grain.name.lower()} a move"

    def search(self, threads: int = 1, *, is_loud: bool = False) -> Found:
        search = Search(self.bounds, self.membership, is_loud=is_loud)
        return search.run(self.states_max, threads=threads)


def small(
    proposers: str,
    acceptors: str,
    terms: int,
    positions: int,
    grain: Grain = Grain.CONVERSATION,
    *,
    wanted: str = "",
    states_max: int = 1_000_000,
) -> Small:
    bounds = Bounds(terms, positions, tuple(proposers), grain, tuple(wanted))
    return Small(bounds, Membership(1, tuple(acceptors)), states_max)


_MANY = 400_000_000  # Of larger ones eight gigabytes do not hold the fingerprints and two layers.
WORLDS = (
    small("a", "abc", 1, 2),
    small("ab", "ab", 2, 2),
    small("ab", "ab", 2, 2, Grain.MESSAGE),
    small("ab", "abc", 1, 1),
    small("ab", "abc", 1, 1, Grain.MESSAGE, states_max=_MANY),
    small("ab", "a", 2, 1, wanted="b"),
)
LARGE = (
    small("ab", "ab", 1, 1, Grain.WRITE, states_max=_MANY),
    small("ab", "abc", 2, 1, states_max=_MANY),
    small("ab", "abc", 2, 2, states_max=_MANY),
    small("ab", "abc", 2, 1, wanted="abd", states_max=_MANY),
    small("ab", "a", 2, 1, Grain.MESSAGE, wanted="b", states_max=_MANY),
    small("abc", "abc", 2, 2, states_max=_MANY),
    small("ab", "abc", 2, 2, Grain.MESSAGE, states_max=_MANY),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.explore", description=__doc__)
    parser.add_argument("--large", action="store_true", help="the large ones: hours, and gigabytes of memory")
    parser.add_argument("--only", default="", help="those with this in their names")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("docs/results/explore.json"))
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    is_good = True
    for world in LARGE if args.large else WORLDS:
        if args.only not in world.name:
            continue
        begun_s = time.process_time()
        found = world.search(args.threads, is_loud=True)
        results[world.name] = {
            "complete": found.is_complete,
            "states": found.states,
            "transitions": found.transitions,
            "depth": found.depth,
            "states of one member": found.members,
            "cpu_s": round(time.process_time() - begun_s),
            "violation": found.violation,
        }
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps(results, indent=2) + "\n")
        print(world.name, json.dumps(results[world.name]), flush=True)
        print("\n".join(found.trace))
        is_good = is_good and not found.violation
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
