"""Lists the fixture plug-ins and says in the report's header what the run is made of."""

import platform
from importlib.metadata import PackageNotFoundError, version

from hypothesis import settings

# How long one example takes says more about what else the machine does than about us.
settings.register_profile("any load", deadline=None)
settings.load_profile("any load")

pytest_plugins = [
    "tests.fix_draw",
    "tests.fix_log",
    "tests.fix_pageserver",
    "tests.fix_pg",
    "tests.fix_results",
    "tests.fix_stack",
]


def pytest_report_header() -> list[str]:
    lines = [f"python {platform.python_version()}, {platform.machine()}, {platform.release()}"]
    for package in ("walproxy", "psycopg"):
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed: run `make dev`")
    return lines
