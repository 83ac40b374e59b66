"""Drawn values: another one in each run, the same one again with ``--draw-seed``; and which tests are asked for."""

import random

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--draw-seed", type=int, default=None, help="repeat the draws of a failed test")
    parser.addoption(
        "--matrix", action="store_true", help="run every combination, long; not a few drawn ones"
    )
    parser.addoption("--upgrade-from", metavar="COMMIT", help="the earlier version that upgrades begin with")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = {"matrix": config.getoption("--matrix"), "upgrade": config.getoption("--upgrade-from")}

    def is_wanted(item: pytest.Item) -> bool:
        return all(asked[name] or not item.get_closest_marker(name) for name in asked)

    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    items[:] = [item for item in items if is_wanted(item)]


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """A generator of this test's own. The report of a failure shows its seed."""
    seed = request.config.getoption("--draw-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    request.node.add_report_section("setup", "draw", f"repeat with --draw-seed={seed}")
    # Of this test alone: a seed for many tests gives each its own draws.
    return random.Random(f"{seed} {request.node.name}")
