"""Private stock PostgreSQL servers, one test run per major.

A test that takes ``major``, ``bindir``, ``new_server`` or ``pg`` runs once for each major of ``--pg-majors``;
the marker ``pg(15, 18)`` narrows that, ``pg_every`` widens it to all supported ones unless some were named, and
``pg_features("lz4")`` asks for a build that has more.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools import postgres
from tools.process import Process
from tools.server import Server, Setting

MAJORS = pytest.StashKey[tuple[int, ...]]()
EVERY = pytest.StashKey[tuple[int, ...]]()
SUPPORTED = (15, 16, 17, 18)

NewServer = Callable[..., Server]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pg-majors",
        default=os.environ.get("PG_MAJORS"),
        help="comma-separated PostgreSQL majors for tests with a server (default: of PG_BIN, else 15,18)",
    )


def pytest_configure(config: pytest.Config) -> None:
    named = config.getoption("--pg-majors")
    if named:
        majors = tuple(int(major) for major in str(named).split(","))
    else:
        majors = (postgres.default_major(),) if os.environ.get("PG_BIN") else (15, 18)
    config.stash[MAJORS] = majors
    config.stash[EVERY] = majors if named or os.environ.get("PG_BIN") else SUPPORTED
    config.addinivalue_line("markers", "pg_every: with every supported PostgreSQL major")
    config.addinivalue_line("markers", "pg(*majors): only with these of the chosen PostgreSQL majors")
    config.addinivalue_line("markers", "pg_features(*names): a build with lz4, zstd, ssl or pageinspect")


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for major in config.stash[MAJORS]:
        try:
            folder = postgres.bindir(major)
        except postgres.PostgresMissing as error:
            lines.append(str(error).partition("\n")[0])
            continue
        printed = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        lines.append(f"{printed.stdout.strip()}: {folder}")
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "major" not in metafunc.fixturenames:
        return
    wants_every = metafunc.definition.get_closest_marker("pg_every") is not None
    majors = metafunc.config.stash[EVERY if wants_every else MAJORS]
    for marker in metafunc.definition.iter_markers("pg"):
        majors = tuple(major for major in majors if major in marker.args)
    metafunc.parametrize("major", majors, ids=[f"pg{major}" for major in majors], scope="session")


@pytest.fixture
def bindir(major: int, request: pytest.FixtureRequest) -> Path:
    """The programs of this run's major, with the features that the test's marker asks for."""
    wanted = request.node.iter_markers("pg_features")
    return _bindir(major, tuple(str(name) for marker in wanted for name in marker.args))


def _bindir(major: int, features: tuple[str, ...] = ()) -> Path:
    try:
        return postgres.bindir(major, features)
    except postgres.PostgresMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="walproxy-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A fresh folder with a short path, that other users may pass through (a server's may not be root).

    Not pytest's: another run of it that starts meanwhile locks all others out of those.
    """
    with _folder() as made:
        yield made


@pytest.fixture
def new_server(folder: Path, bindir: Path, watched: list[Process]) -> Iterator[NewServer]:
    """A function that makes a server, initialised and not started: ``new_server("name", setting=…)``."""
    made: list[Server] = []

    def new(
        name: str = "primary", *, checksums: bool = False, segment_size_mb: int = 16, **settings: Setting
    ) -> Server:
        server = Server(folder / name, bindir, name=name)
        made.append(server)
        watched.append(server.process)
        return server.initdb(checksums=checksums, segment_size_mb=segment_size_mb).configure(**settings)

    yield new
    for server in made:
        server.destroy()


@pytest.fixture(scope="module")
def module_server(major: int) -> Iterator[Server]:
    """An initialised server, not started, for all tests of a module; what they keep goes beside its folder."""
    with _folder() as folder:
        server = Server(folder / "pg", _bindir(major)).initdb()
        yield server
        server.destroy()


@pytest.fixture
def pg(new_server: NewServer) -> Server:
    """A running server with default settings."""
    return new_server().start()
