"""``python -m tests.sim``: seeds by the thousand, in several processes; ends with 1 if anything did not hold."""

import argparse
import hashlib
import json
import multiprocessing
import sys
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

from tests.sim.seeds import run_seed

_SAVE_EVERY = 100
_SOURCES = ("walproxy/quorum", "tests/sim")


def attempt(seed: int, *, with_membership: bool | None) -> tuple[int, Counter[str], str]:
    """The seed, what happened in it, and what did not hold, if anything."""
    try:
        return seed, run_seed(seed, with_membership=with_membership), ""
    except Exception as error:  # noqa: BLE001 - an error of the core is a finding too
        last = traceback.extract_tb(error.__traceback__)[-1]
        return seed, Counter(), f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def sources_digest() -> str:
    """Of the core and its simulation: counts of another one do not add up with ours."""
    files = sorted(file for folder in _SOURCES for file in Path(folder).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--events", type=int, default=0, help="go on until so many were simulated, ever")
    parser.add_argument("--membership", action="store_true", help="the membership changes in every seed")
    parser.add_argument("--results", type=Path, help="add up there, and go on from there")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def load(results: Path | None, kind: str) -> Counter[str]:
    if results is None or not results.exists():
        return Counter()
    run = json.loads(results.read_text()).get(kind, {})
    return Counter(run["counts"]) if run.get("sources") == sources_digest() else Counter()


def save(results: Path | None, kind: str, counts: Counter[str], failures: list[str]) -> None:
    if results is None:
        return
    runs = json.loads(results.read_text()) if results.exists() else {}
    runs[kind] = {
        "sources": sources_digest(),
        "seeds": f"0 to {counts['seeds'] + len(failures) - 1}",
        "violations": failures,
        "counts": dict(sorted(counts.items())),
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(runs, indent=2) + "\n")


def main() -> None:
    args = parsed()
    kind = "membership changes in every seed" if args.membership else "mixtures drawn by seed"
    counts = load(args.results, kind)
    failures: list[str] = []
    work = partial(attempt, with_membership=True if args.membership else None)
    first = args.first + counts["seeds"]
    wanted_events = args.events or sys.maxsize
    with multiprocessing.Pool(args.workers) as pool:
        while counts["events"] < wanted_events and not failures:
            count = min(args.seeds, _SAVE_EVERY) if args.events else args.seeds
            for seed, found, failure in pool.imap(work, range(first, first + count)):
                counts += found
                if failure:
                    failures.append(f"seed {seed}: {failure}")
                    print(failures[-1], flush=True)
            first += count
            save(args.results, kind, counts, failures)
            if not args.events:
                break
    print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    print(f"{len(failures)} violations")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
