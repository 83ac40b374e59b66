"""An earlier version of this project, built as it was, to run beside the present one."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def interpreter(commit: str) -> Path:
    """The Python whose ``walproxy`` and ``pageserver`` are those of a commit; built once, in ``build/releases``."""
    described = subprocess.run(
        ["git", "rev-parse", "--verify", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = ROOT / "build" / "releases" / described.stdout.strip()
    if not folder.exists():
        folder.mkdir(parents=True)
        tree = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=tree.stdout, check=True)
    subprocess.run(["make", "--silent", "dev"], cwd=folder, check=True)
    return folder / ".venv" / "bin" / "python"
