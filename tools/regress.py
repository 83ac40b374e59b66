"""PostgreSQL's own regression suite, of the source package: ``python -m tools.regress 18`` fetches and builds it.

The server package has the program ``pg_regress``; the tests and their module's source come from the source
package, and the headers to build the module from the development package. All of it is kept in the cache.
"""

import argparse
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools import debian, postgres
from tools.server import Server

TESTS = "src/test/regress"
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
    options += [f"--dlpath={suite.modules}", f"--schedule={suite.tests}/parallel_schedule"]
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


def _build(major: int, bindir: Path, root: Path) -> None:
    if shutil.which("cc") is None:
        raise debian.DebianMissing("there is no C compiler: install the package gcc")
    debian.source(major, root, folder=TESTS)
    debian.headers(major, root)
    library = bindir.parent / "lib"
    program = root / "pg_regress"
    shutil.copy(library / "pgxs" / TESTS / "pg_regress", program)
    debian.bind_like(program, bindir / "psql")
    modules = root / "modules"
    modules.mkdir()
    for name in ("autoinc.so", "refint.so"):
        shutil.copy(library / name, modules)
    include = root / f"usr/include/postgresql/{major}/server"
    command = ["cc", "-O2", "-fPIC", "-shared", "-w", f"-I{include}", "-o", f"{modules}/regress.so"]
    subprocess.run([*command, f"{root / TESTS}/regress.c"], check=True)
    shutil.rmtree(root / "usr")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.regress", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("major", type=int, choices=sorted(debian.SUITES))
    try:
        print(suite(parser.parse_args().major))
    except (postgres.PostgresMissing, debian.DebianMissing) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
