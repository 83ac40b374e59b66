"""PostgreSQL's own regression suite, of the source package: ``python -m tools.regress 18`` fetches and builds it.

The server package has the program ``pg_regress``; the tests and their module's source come from the source
package, and the headers to build the module from the development package. All of it is kept in the cache.
No package has the suite of 16: its servers run the tests of 15, of which some cannot give what is expected.
"""

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tools import debian, module, postgres
from tools.server import Server

TESTS = "src/test/regress"
LENT_MAJOR = 16
_LINE_OF_15 = re.compile(r"^(?:test)? +(\w+) +\.\.\. (ok|FAILED|failed)", re.MULTILINE)
_LINE = re.compile(r"^(ok|not ok) \d+ +[-+] (\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite of one major.

    Attributes:
        bindir: of the server it belongs to.
        tests: folder with ``sql``, ``expected``, ``data`` and the schedules.
        program: ``pg_regress``.
        modules: folder with ``regress.so`` and the contrib modules that the tests load by path.
    """

    bindir: Path
    tests: Path
    program: Path
    modules: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many tests gave the expected output, and which did not."""

    passed: int
    failed: tuple[str, ...]


def suite(major: int) -> Suite:
    """The suite of ``major``, fetched and built if need be.

    Raises:
        PostgresMissing, DebianMissing: the packages are not to be had, or there is no C compiler.
    """
    if major == LENT_MAJOR:
        return _lent()
    bindir = postgres.debian_bindir(major)
    root = postgres.cached(f"regress-{major}", lambda root, _final: _build(major, bindir, root))
    return Suite(bindir, root / TESTS, root / "pg_regress", root / "modules")


def run(suite: Suite, server: Server, folder: Path, *, deadline_s: float = 3600.0) -> Outcome:
    """Run the parallel schedule on a running server; its database ``regression`` stays.

    Args:
        suite: of the server's major.
        server: the superuser is ``postgres``.
        folder: gets the output of the tests; made if missing.
        deadline_s: longest time for all of it.
    """
    output = server.own(folder)
    options = [f"--inputdir={suite.tests}", f"--outputdir={output}", f"--bindir={suite.bindir}"]
    if server.major >= 16:
        options.append(f"--expecteddir={suite.tests}")
    schedule = output / "schedule"
    schedule.write_text(_schedule(suite, server.major))
    options += [f"--dlpath={suite.modules}", f"--schedule={schedule}"]
    target = ["--host=127.0.0.1", f"--port={server.port}", "--user=postgres"]
    limits = ["--max-concurrent-tests=20", "--no-locale", "--encoding=UTF8"]
    # Joined to an absolute path, the folder of the server's programs does not count.
    done = server.run(str(suite.program), *options, *target, *limits, check=False, deadline_s=deadline_s)
    verdicts = dict(_LINE_OF_15.findall(done.stdout)) | {
        name: said for said, name in _LINE.findall(done.stdout)
    }
    failed = tuple(sorted(name for name, said in verdicts.items() if said != "ok"))
    if not verdicts:
        said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise AssertionError(f"pg_regress ran nothing: exit={done.returncode}\n{said}")
    return Outcome(len(verdicts) - len(failed), failed)


def _schedule(suite: Suite, major: int) -> str:
    """The parallel schedule; up to 15 it has a line that later drivers do not know."""
    lines = (suite.tests / "parallel_schedule").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if major == 15 or not line.startswith("ignore:"))


def _lent() -> Suite:
    """The tests of the major before, for servers whose own are not to be had."""
    tests, bindir = suite(LENT_MAJOR - 1).tests, postgres.bindir(LENT_MAJOR)
    program = bindir.parent / "lib/postgresql/pgxs" / TESTS / "pg_regress"
    if not program.exists():
        program = bindir.parent / "lib/pgxs" / TESTS / "pg_regress"
    program.chmod(0o755)
    # What 15 has from other headers, 16 names itself.
    included = ("-include", "postgres.h", "-include", "utils/array.h")
    modules = postgres.cached(
        f"regress-{LENT_MAJOR}",
        lambda root, _final: module.build(tests / "regress.c", root / "regress.so", bindir, *included),
    )
    return Suite(bindir, tests, program, modules)


def _build(major: int, bindir: Path, root: Path) -> None:
    debian.source(major, root, folder=TESTS)
    library = bindir.parent / "lib"
    program = root / "pg_regress"
    shutil.copy(library / "pgxs" / TESTS / "pg_regress", program)
    debian.bind_like(program, bindir / "psql")
    modules = root / "modules"
    modules.mkdir()
    for name in ("autoinc.so", "refint.so"):
        shutil.copy(library / name, modules)
    module.build(root / TESTS / "regress.c", modules / "regress.so", bindir)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.regress", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("major", type=int, choices=postgres.MAJORS)
    try:
        print(suite(parser.parse_args().major))
    except (postgres.PostgresMissing, debian.DebianMissing) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
