"""Shows the logs of a failed test's processes in its report."""

from collections.abc import Generator

import pytest

from tools.process import Process

PROCESSES = pytest.StashKey[list[Process]]()


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> list[Process]:
    """Processes appended here have the end of their log shown if the test fails."""
    processes: list[Process] = request.node.stash.setdefault(PROCESSES, [])
    return processes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in item.stash.get(PROCESSES, []):
            report.sections.append((f"{process.name} (exit={process.exit_code})", process.tail()))
    return report
