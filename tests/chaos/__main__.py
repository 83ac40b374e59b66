"""``make chaos``: faults on real processes, links and disks, drawn from a seed; no acknowledged commit is lost."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.chaos.report import report
from tests.chaos.run import Run
from tools import network
from tools.postgres import bindir, default_major

HALF_AN_HOUR_S = 1800
console = Console(width=None if sys.stdout.isatty() else 150)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=1800, help="how long faults are done (default: 1800)"
    )
    parser.add_argument(
        "--least", type=int, help="go on until each kind was done so often (default: 10 from half an hour on)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what all is drawn from")
    parser.add_argument("--pg", type=int, default=default_major(), help="PostgreSQL major")
    parser.add_argument("--json", type=Path, help="default: build/chaos-MAJOR.json")
    parser.add_argument("--folder", type=Path, help="made for disks and logs; kept if anything is found")
    asked = parser.parse_args()
    if why := network.missing():
        sys.exit(f"chaos {why}")
    network.enter_private()

    folder = asked.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    least = asked.least if asked.least is not None else 10 * (asked.seconds >= HALF_AN_HOUR_S)
    run = Run(folder, bindir(asked.pg), asked.pg, asked.seed, asked.seconds, least, say)
    is_clean = run.carry_out()
    report(run, asked.json or Path(f"build/chaos-{asked.pg}.json"), console)
    if is_clean:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"what was found lies in {folder}; seed {asked.seed}", style="red", highlight=False)
    sys.exit(not is_clean)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
