"""Drawn values: another one in each run, the same one again with ``--draw-seed``."""

import random

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--draw-seed", type=int, default=None, help="repeat the draws of a failed test")
    parser.addoption(
        "--matrix", action="store_true", help="run every combination, long; not a few drawn ones"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--matrix"):
        return
    left_out = [item for item in items if item.get_closest_marker("matrix")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("matrix")]


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """A generator of this test's own. The report of a failure shows its seed."""
    seed = request.config.getoption("--draw-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    request.node.add_report_section("setup", "draw", f"repeat with --draw-seed={seed}")
    # Of this test alone: a seed for many tests gives each its own draws.
    return random.Random(f"{seed} {request.node.name}")
