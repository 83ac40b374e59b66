"""Builds modules in C for the servers of a PostgreSQL."""

import shutil
import subprocess
from pathlib import Path

from tools import debian, postgres


def build(source: Path, target: Path, bindir: Path, *options: str) -> Path:
    """Compile one file into a shared library, for the servers of ``bindir``; gives ``target``.

    Raises:
        DebianMissing: there is no C compiler, or the headers are not to be had.
        CalledProcessError: it does not compile.
    """
    if shutil.which("cc") is None:
        raise debian.DebianMissing("there is no C compiler: install the package gcc")
    include = headers(bindir)
    command = ["cc", "-O2", "-fPIC", "-shared", "-w", f"-I{include}", *options]
    subprocess.run([*command, "-o", str(target), str(source)], check=True)
    target.chmod(0o755)
    return target


def headers(bindir: Path) -> Path:
    """The folder of the servers' headers: beside the programs, or of Debian's package for development.

    Raises:
        DebianMissing: as `debian.headers`.
    """
    major = postgres.major_of(bindir)
    for folder in ("include/server", "include/postgresql/server"):
        if (bindir.parent / folder / "postgres.h").exists():
            return bindir.parent / folder
    root = postgres.cached(f"headers-{major}", lambda root, _final: debian.headers(major, root))
    return root / f"usr/include/postgresql/{major}/server"
