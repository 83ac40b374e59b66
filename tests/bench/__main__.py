"""``make bench``: every benchmark beside its peer, as a table and in ``build/bench.json``."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import backlog, commit, decode, getpage, idle, inspect, redo
from tests.bench.harness import Result, machine
from tools.postgres import bindir, default_major

NAMES = ("commit", "backlog", "idle", "decode", "inspect", "getpage", "redo")
Benchmark = Callable[[Path], list[Result]]
# The table wants more than the 80 columns of a pipe.
console = Console(width=None if sys.stdout.isatty() else 150)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="rounds of each")
    parser.add_argument("--duration", type=int, default=10, help="seconds of each measure under load")
    parser.add_argument("--pg", type=int, default=default_major(), help="PostgreSQL major")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    asked = parser.parse_args()

    programs = bindir(asked.pg)
    under_load = {"bindir": programs, "runs": asked.runs, "duration_s": asked.duration, "say": console.print}
    benchmarks: dict[str, Benchmark] = {
        "commit": lambda folder: commit.run(folder, **under_load),
        "backlog": lambda folder: backlog.run(folder, programs, runs=asked.runs, say=console.print),
        "idle": lambda folder: idle.run(folder, programs, runs=asked.runs, say=console.print),
        "decode": lambda folder: decode.run(folder, programs, runs=asked.runs, say=console.print),
        "inspect": lambda folder: inspect.run(folder, programs, runs=asked.runs, say=console.print),
        "getpage": lambda folder: getpage.run(folder, **under_load),
        "redo": lambda _: redo.run(programs, runs=asked.runs, say=console.print),
    }
    results: list[Result] = []
    if unknown := set(asked.names) - set(benchmarks):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    for name in asked.names or NAMES:
        console.rule(name)
        folder = Path(tempfile.mkdtemp(prefix="walproxy-"))
        folder.chmod(0o755)
        try:
            results += benchmarks[name](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    _report(results, asked.json, asked.pg)


def _report(results: list[Result], path: Path, major: int) -> None:
    table = Table("benchmark", "unit", "ours", "peer", "peer's name", "ratio", "rounds", "ratios from - to")
    for result in results:
        low, high = result.spread.ratio
        figures = (f"{result.ours:.4g}", f"{result.peer:.4g}", result.peer_name, f"{result.ratio:.2f}")
        table.add_row(result.name, result.unit, *figures, str(result.runs), f"{low:.2f} - {high:.2f}")
    console.print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {
        "machine": machine() | {"postgres": major},
        "results": [result.as_json() for result in results],
    }
    path.write_text(json.dumps(written, indent=2) + "\n")
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
