"""What a run found, as a table and as JSON."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.harness import machine
from tests.chaos.run import Run


def report(run: Run, path: Path, console: Console) -> None:
    """Print the table; write the same and more to ``path``."""
    table = Table("fault", "times", "alone", "longest stall then, s")
    stalls = run.found.get("stalls", {})
    for kind, times in sorted(run.counts.items()):
        alone = stalls.get(kind, {})
        table.add_row(kind, str(times), str(alone.get("times", "")), str(alone.get("longest_s", "")))
    console.print(table)
    command = f"python -m tests.chaos --seconds {run.seconds:g} --seed {run.seed} --pg {run.major}"
    written = {"commit": run.commit, "command": command, "machine": machine()} | run.as_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1) + "\n")
    lost = run.found.get("lost")
    said = f"acknowledged {run.found.get('commits', '?')}, lost {sum(lost.values()) if lost else '?'}"
    console.print(f"{said}; {'FAILED: ' + run.failure if run.failure else 'clean'}; written: {path}")
