"""What the long runs found, kept: ``--results FILE`` gathers a line of each into one JSON file."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.harness import machine

COMMIT = pytest.StashKey[str]()

Keep = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, default=None, help="write what the tests keep to this JSON file")


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Keep:
    """A function that keeps the figures of one part of a test: ``keep(pages=1, different=0)``."""
    began = time.monotonic()

    def keep(**figures: object) -> None:
        path: Path | None = request.config.getoption("--results")
        if path is not None:
            line = {"test": request.node.name, "at_s": round(time.monotonic() - began, 1)} | figures
            path.parent.mkdir(parents=True, exist_ok=True)
            # One short write each: workers beside each other do not mix their lines.
            with path.with_suffix(".lines").open("a") as lines:
                lines.write(json.dumps(line) + "\n")

    return keep


def pytest_configure(config: pytest.Config) -> None:
    # What is tested is what stood here when it began.
    described = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(described, capture_output=True, text=True, check=False)
    config.stash[COMMIT] = done.stdout.strip()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Gather the lines under the commit, the machine and the command they were found with."""
    path: Path | None = session.config.getoption("--results")
    if path is None or hasattr(session.config, "workerinput"):
        return
    lines = path.with_suffix(".lines")
    kept = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    lines.unlink(missing_ok=True)
    written = {
        "commit": session.config.stash[COMMIT],
        "command": " ".join(["pytest", *session.config.invocation_params.args]),
        "draw_seed": session.config.getoption("--draw-seed"),
        "machine": machine(),
        "exit_code": int(exitstatus),
        "results": sorted(kept, key=lambda line: (line["test"], line["at_s"])),
    }
    path.write_text(json.dumps(written, indent=1) + "\n")
