"""Runs the demo, cleans up, reports; exits with 1 and the failures if anything did not hold."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from demo.show import Show
from tools.postgres import PostgresMissing, bindir, default_major

LOGS = Path("build/demo-logs")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The whole main job on loopback.")
    parser.add_argument(
        "--pg", type=int, default=default_major(), help="PostgreSQL major (default: PG_BIN's, or 18)"
    )
    parser.add_argument("--json", type=Path, default=Path("build/demo.json"))
    asked = parser.parse_args()
    console = Console()
    try:
        programs = bindir(asked.pg, ("pageinspect",))
    except PostgresMissing as error:
        sys.exit(f"error: {error}")
    folder = Path(tempfile.mkdtemp(prefix="walproxy-"))
    folder.chmod(0o755)
    show = Show(folder, programs, console)
    try:
        show.play()
    except Exception as error:  # noqa: BLE001  # Whatever it is, it ends the show and stands in the report.
        show.figures.errors.append(f"{type(error).__name__}: {error}")
    finally:
        show.clear()
        failures = show.figures.failures()
        if failures:
            _keep_logs(folder)
        shutil.rmtree(folder, ignore_errors=True)
    show.figures.write(asked.json)
    console.print(show.figures.table())
    console.print(f"written: {asked.json}")
    for failure in failures:
        console.print(f"[red]FAILED[/red] {failure}", highlight=False, markup=True)
    if failures:
        sys.exit(f"{len(failures)} failures; logs: {LOGS}")


def _keep_logs(folder: Path) -> None:
    shutil.rmtree(LOGS, ignore_errors=True)
    for log in [*folder.rglob("log"), *folder.rglob("*.log")]:
        kept = LOGS / "-".join(log.relative_to(folder).parts)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, kept)


if __name__ == "__main__":
    main()
