"""``make oracle``: redo against every page image that stock servers log, and our pg_waldump against theirs."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from rich.console import Console

from tests.oracle import coverage, mixed, rare, regression, waldump
from tests.oracle.finding import load
from tools.postgres import MAJORS, bindir


class Found(Protocol):
    """What one workload showed on one major."""

    @property
    def version(self) -> str:
        """Of the server."""

    def figures(self) -> str:
        """In one line."""

    def wrong(self) -> Iterable[str]:
        """What must not be, in words."""

    def save(self) -> Path:
        """Keep it in docs/results."""


Workload = Callable[[Path, int], Found]

console = Console()
WORKLOADS: dict[str, tuple[Workload, tuple[int, ...]]] = {
    "mixed": (mixed.run, MAJORS),
    "regression": (regression.run, (15, 18)),
    "rare": (lambda folder, major: rare.run(folder, bindir(major)), MAJORS),
    "waldump": (waldump.run, MAJORS),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.oracle", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--pg", type=int, action="append", choices=MAJORS, help="only this major; repeatable")
    parser.add_argument("--folder", type=Path, help="where servers and their WAL are made; 30 GB")
    parser.add_argument("--table", action="store_true", help="only write docs/redo-coverage.md anew")
    asked = parser.parse_args()
    if unknown := set(asked.workloads) - set(WORKLOADS):
        parser.error(f"unknown workload {', '.join(sorted(unknown))}")
    bad = 0
    for name in () if asked.table else asked.workloads or WORKLOADS:
        workload, majors = WORKLOADS[name]
        for major in majors:
            if major in (asked.pg or majors):
                bad += _run(name, workload, major, asked.folder)
    coverage.PAGE.write_text(coverage.page(list(load())))
    console.print(f"written: {coverage.PAGE}")
    sys.exit(3 if bad else 0)


def _run(name: str, workload: Workload, major: int, parent: Path | None) -> int:
    """Run one, in a folder of its own that is removed; gives how much is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="walproxy-", dir=parent))
    folder.chmod(0o755)
    try:
        finding = workload(folder, major)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finding.save()
    console.print(f"{name} on {finding.version}: {finding.figures()}", markup=False, highlight=False)
    for line in finding.wrong():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return len(list(finding.wrong()))


if __name__ == "__main__":
    main()
