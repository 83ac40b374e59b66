"""``python -m tests.mutants``: break each rule of docs/quorum.md and see who notices; docs/quorum-mutants.md.

A mutant lives in the memory of one process: its module is compiled from changed source when it is imported.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutants.rules import MUTANTS, Mutant

REPORT = Path("docs/quorum-mutants.md")
UNIT_TESTS = (
    "tests/unit/test_quorum_acceptor.py",
    "tests/unit/test_quorum_proposer.py",
    "tests/unit/test_quorum_primary.py",
    "tests/unit/test_quorum_membership.py",
    "tests/unit/test_quorum_handover.py",
    "tests/unit/test_health.py",
    "tests/unit/test_opening.py",
    "tests/unit/test_store_wal.py",
    "tests/property/test_quorum_messages.py",
    "tests/property/test_quorum.py",
)
_KILLED = "killed: "
HUNTERS = ("explorer", "unit test", "simulation")


class Swap(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant's module from changed source."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the interface has it
        target: ModuleType | None = None,  # noqa: ARG002 - the interface has it
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(source_of(self._mutant)))

    def exec_module(self, module: ModuleType) -> None:
        file = source_of(self._mutant)
        source = mutated(self._mutant, file.read_text())
        exec(compile(source, str(file), "exec"), module.__dict__)


def source_of(mutant: Mutant) -> Path:
    return Path(mutant.module.replace(".", "/") + ".py")


def mutated(mutant: Mutant, source: str) -> str:
    count = source.count(mutant.old)
    if count != 1:
        raise ValueError(f"rule {mutant.rule}, {mutant.without}: found {count} times in {mutant.module}")
    return source.replace(mutant.old, mutant.new)


def hunt_in_simulation(seeds: int) -> str:
    """The first seed that fails, with what did not hold; empty if none does."""
    from tests.sim.__main__ import attempt  # noqa: PLC0415 - only when the mutant is in place

    for seed in range(seeds):
        for with_membership in (None, True) if seed % 4 == 0 else (None,):
            _, _, failure = attempt(seed, with_membership=with_membership)
            if failure:
                return f"seed {seed}{', members change' if with_membership else ''}: {failure}"
    return ""


def hunt_by_exploring() -> str:
    """What the first wrong world has against it; empty if none was met."""
    from tests.explore.__main__ import small  # noqa: PLC0415 - only when the mutant is in place
    from tests.explore.bounds import Grain  # noqa: PLC0415

    for world in (
        small("ab", "abc", 2, 2, states_max=8_000),
        small("ab", "ab", 2, 1, Grain.WRITE, states_max=8_000),
        small("ab", "a", 2, 1, wanted="b"),
    ):
        try:
            found = world.search()
        except Exception as error:  # noqa: BLE001 - the core broke
            return f"{type(error).__name__}: {error}"
        if found.violation:
            return f"after {len(found.trace)} steps: {found.violation}"
    return ""


class FirstFailure:
    """A pytest plugin: the name of the first test that failed."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.partition("::")[2].partition("[")[0]


def hunt_in_unit_tests() -> str:
    first = FirstFailure()
    code = pytest.main(["-x", "-q", "-p", "no:randomly", "-p", "no:xdist", *UNIT_TESTS], plugins=[first])
    return first.name or ("" if code == 0 else f"pytest ended with {code}")


def hunt(number: int, hunter: str, seeds: int) -> str:
    """In a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.mutants",
        "--mutant",
        str(number),
        "--hunter",
        hunter,
        "--seeds",
        str(seeds),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line.removeprefix(_KILLED) for line in done.stdout.splitlines() if line.startswith(_KILLED)]
    if done.returncode not in {0, 1}:
        raise RuntimeError(done.stdout + done.stderr)
    return found[0] if found else ""


@dataclass(frozen=True)
class Fate:
    """A mutant and who noticed it: hunter and what it saw."""

    mutant: Mutant
    killers: tuple[tuple[str, str], ...]

    @property
    def row(self) -> str:
        killers = "; ".join(f"{hunter}: {what}" for hunter, what in self.killers) or "**nobody**"
        return f"| {self.mutant.rule} | {self.mutant.without} | {killers.replace('|', chr(92) + '|')} |"


def fate(number: int, *, seeds: int, everyone: bool) -> Fate:
    killers: list[tuple[str, str]] = []
    for hunter in HUNTERS:
        if everyone or not killers:
            what = hunt(number, hunter, seeds)
            killers += [(hunter, what)] if what else []
    found = Fate(MUTANTS[number], tuple(killers))
    print(found.row, flush=True)
    return found


def report(fates: list[Fate], *, seeds: int, everyone: bool) -> str:
    alive = sum(not fate.killers for fate in fates)
    asked = (
        "each of them is asked"
        if everyone
        else "who comes later in this list is asked only if no other noticed"
    )
    text = (
        "Made by `make mutants`. Each row is the program without one thing that a rule of [quorum.md](quorum.md) asks "
        "for, and who noticed: the explorer, in the first 8,000 states of each of two worlds, and in all of the one "
        "whose member {a} is replaced with {b}; the first unit test "
        f"that fails; the simulation, in at most {seeds} seeds, every fourth also with changes of the members; "
        f"{asked}. Mutants of the driver are mutants of the simulation's own."
    )
    rows = [fate.row for fate in fates]
    head = [
        "# The mutants of the quorum",
        "",
        text,
        "",
        f"{len(fates)} mutants, {alive} that nobody noticed.",
        "",
    ]
    return "\n".join([*head, "| rule | without | noticed by |", "|---|---|---|", *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--mutant", type=int, help="only that one, in this process")
    parser.add_argument("--hunter", choices=HUNTERS, default="simulation")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--everyone", action="store_true", help="ask every hunter about every mutant")
    args = parser.parse_args()
    if args.mutant is not None:
        sys.meta_path.insert(0, Swap(MUTANTS[args.mutant]))
        hunts = (hunt_by_exploring, hunt_in_unit_tests, lambda: hunt_in_simulation(args.seeds))
        killed = hunts[HUNTERS.index(args.hunter)]()
        print(f"\n{_KILLED}{killed.splitlines()[0]}" if killed else "\nsurvived")
        sys.exit(bool(killed))
    for mutant in MUTANTS:
        mutated(mutant, source_of(mutant).read_text())
    work = partial(fate, seeds=args.seeds, everyone=args.everyone)
    with ThreadPoolExecutor(args.workers) as pool:
        fates = list(pool.map(work, range(len(MUTANTS))))
    REPORT.write_text(report(fates, seeds=args.seeds, everyone=args.everyone))
    sys.exit(not all(fate.killers for fate in fates))


if __name__ == "__main__":
    main()
