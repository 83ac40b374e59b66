"""``python -m tests.explore``: search small worlds to the end, or as far as it is let; docs/results/explore.json."""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.explore.search import Found, Search
from tests.explore.steps import Bounds
from walproxy.quorum.membership import Membership


@dataclass(frozen=True)
class Small:
    """A world to search, and how many states it is given."""

    name: str
    bounds: Bounds
    membership: Membership
    states_max: int

    def search(self) -> Found:
        return Search(self.bounds, self.membership).run(self.states_max)


def small(
    proposers: str, acceptors: str, terms: int, positions: int, *, atomic: bool, states_max: int
) -> Small:
    name = f"proposers {len(proposers)}, acceptors {len(acceptors)}, terms {terms}, positions {positions}"
    name += ", conversations atomic" if atomic else ", each message by itself"
    bounds = Bounds(terms, positions, tuple(proposers), atomic)
    return Small(name, bounds, Membership(1, tuple(acceptors)), states_max)


_FEW = 1_000_000
_MANY = 60_000_000
WORLDS = (
    small("a", "abc", 1, 1, atomic=True, states_max=_FEW),
    small("a", "abc", 1, 2, atomic=True, states_max=_FEW),
    small("ab", "ab", 1, 1, atomic=True, states_max=_FEW),
    small("ab", "ab", 2, 1, atomic=True, states_max=_FEW),
)
LARGE = (
    small("ab", "ab", 1, 1, atomic=False, states_max=_MANY),
    small("ab", "ab", 2, 2, atomic=True, states_max=_MANY),
    small("ab", "abc", 1, 1, atomic=True, states_max=_MANY),
    small("ab", "abc", 2, 1, atomic=True, states_max=_MANY),
    small("ab", "abc", 2, 2, atomic=True, states_max=_MANY),
    small("ab", "abc", 2, 2, atomic=False, states_max=_MANY),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.explore", description=__doc__)
    parser.add_argument("--large", action="store_true", help="the large ones: hours, and gigabytes of memory")
    parser.add_argument("--results", type=Path, default=Path("docs/results/explore.json"))
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    is_good = True
    for world in LARGE if args.large else WORLDS:
        begun_s = time.process_time()
        found = world.search()
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
